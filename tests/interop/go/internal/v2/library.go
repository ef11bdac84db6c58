// Package v2 drives Machinery v2, whose servers are built from broker, backend and lock objects.
package v2

import (
	"context"
	stdlog "log"
	"os"
	"strings"

	"github.com/RichardKnop/machinery/v2"
	amqpbackend "github.com/RichardKnop/machinery/v2/backends/amqp"
	dynamodbbackend "github.com/RichardKnop/machinery/v2/backends/dynamodb"
	backendsiface "github.com/RichardKnop/machinery/v2/backends/iface"
	memcachebackend "github.com/RichardKnop/machinery/v2/backends/memcache"
	mongobackend "github.com/RichardKnop/machinery/v2/backends/mongo"
	redisbackend "github.com/RichardKnop/machinery/v2/backends/redis"
	amqpbroker "github.com/RichardKnop/machinery/v2/brokers/amqp"
	pubsubbroker "github.com/RichardKnop/machinery/v2/brokers/gcppubsub"
	brokersiface "github.com/RichardKnop/machinery/v2/brokers/iface"
	redisbroker "github.com/RichardKnop/machinery/v2/brokers/redis"
	sqsbroker "github.com/RichardKnop/machinery/v2/brokers/sqs"
	"github.com/RichardKnop/machinery/v2/config"
	eagerlock "github.com/RichardKnop/machinery/v2/locks/eager"
	locksiface "github.com/RichardKnop/machinery/v2/locks/iface"
	redislock "github.com/RichardKnop/machinery/v2/locks/redis"
	"github.com/RichardKnop/machinery/v2/log"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"machinery_compat/interop/internal/fleet"
)

const lockRetries = 3

// Library is a server of Machinery v2.
type Library struct {
	options fleet.Options
	server  *machinery.Server
	lock    locksiface.Lock
}

// New connects as the flavor says.
func New(options fleet.Options) (*Library, error) {
	// Standard output belongs to the programs.
	log.Set(stdlog.New(os.Stderr, "", stdlog.LstdFlags|stdlog.Lmicroseconds))
	cnf := configuration(options)
	backend, lock, err := storage(options, cnf)
	if err != nil {
		return nil, err
	}
	broker, err := newBroker(options, cnf)
	if err != nil {
		return nil, err
	}
	return &Library{options: options, server: machinery.NewServer(cnf, broker, backend, lock), lock: lock}, nil
}

func configuration(options fleet.Options) *config.Config {
	return &config.Config{
		Broker:          options.Broker,
		ResultBackend:   options.Backend,
		DefaultQueue:    options.Queue,
		ResultsExpireIn: options.Expire,
		AMQP: &config.AMQPConfig{
			Exchange:      options.Exchange,
			ExchangeType:  options.ExchangeType,
			BindingKey:    options.BindingKey,
			PrefetchCount: options.Prefetch,
			DelayedQueue:  options.DelayedQueue,
		},
		Redis: &config.RedisConfig{
			MaxIdle:                3,
			IdleTimeout:            240,
			ReadTimeout:            15,
			WriteTimeout:           15,
			ConnectTimeout:         15,
			NormalTasksPollPeriod:  1000,
			DelayedTasksPollPeriod: options.DelayedPoll,
			MasterName:             options.MasterName,
			SentinelPassword:       options.SentinelPassword,
			ClusterEnabled:         options.Cluster,
		},
		DynamoDB: &config.DynamoDBConfig{TaskStatesTable: fleet.TaskStatesTable, GroupMetasTable: fleet.GroupMetasTable},
	}
}

func newBroker(options fleet.Options, cnf *config.Config) (brokersiface.Broker, error) {
	if options.Flavor == "v2-amqp" {
		return amqpbroker.New(cnf), nil
	}
	if options.IsSQS() {
		return newSQS(options, cnf)
	}
	if options.Flavor == "v2-pubsub" {
		project, subscription, _ := strings.Cut(strings.TrimPrefix(options.Broker, "gcppubsub://"), "/")
		return pubsubbroker.New(cnf, project, subscription)
	}
	address, err := fleet.ParseRedis(options.Broker)
	if err != nil {
		return nil, err
	}
	if options.Flavor == "v2-goredis" {
		return redisbroker.NewGR(cnf, address.Addresses(), address.DB), nil
	}
	return redisbroker.New(cnf, address.Host, address.User, address.Password, "", address.DB), nil
}

// newSQS takes the region and the credentials from the environment, and the endpoint from the URL.
func newSQS(options fleet.Options, cnf *config.Config) (brokersiface.Broker, error) {
	endpoint, err := options.Endpoint()
	if err != nil {
		return nil, err
	}
	aws, err := awsconfig.LoadDefaultConfig(context.Background())
	if err != nil {
		return nil, err
	}
	client := sqs.NewFromConfig(aws, func(o *sqs.Options) { o.BaseEndpoint = &endpoint })
	cnf.SQS = &config.SQSConfig{Client: client, WaitTimeSeconds: 1}
	return sqsbroker.New(cnf)
}

func storage(options fleet.Options, cnf *config.Config) (backendsiface.Backend, locksiface.Lock, error) {
	lock, err := newLock(options, cnf)
	if err != nil {
		return nil, nil, err
	}
	scheme, rest, _ := strings.Cut(options.Backend, "://")
	switch scheme {
	case "amqp", "amqps":
		return amqpbackend.New(cnf), lock, nil
	case "memcache":
		return memcachebackend.New(cnf, strings.Split(rest, ",")), lock, nil
	case "mongodb":
		backend, err := mongobackend.New(cnf)
		return backend, lock, err
	case "https":
		// Where the service is, and as whom, is said by AWS's variables.
		backend, err := dynamodbbackend.New(cnf)
		return backend, lock, err
	}
	address, err := fleet.ParseRedis(options.Backend)
	if err != nil {
		return nil, nil, err
	}
	if options.Flavor == "v2-goredis" {
		return redisbackend.NewGR(cnf, address.Addresses(), address.DB), lock, nil
	}
	return redisbackend.New(cnf, address.Host, address.User, address.Password, "", address.DB), lock, nil
}

func newLock(options fleet.Options, cnf *config.Config) (locksiface.Lock, error) {
	at := options.Lock
	if at == "" {
		at = options.Backend
	}
	if !strings.HasPrefix(at, "redis") {
		return eagerlock.New(), nil
	}
	address, err := fleet.ParseRedis(at)
	if err != nil {
		return nil, err
	}
	return redislock.New(cnf, address.Addresses(), address.DB, lockRetries), nil
}

// announcing calls ready when consumption begins.
type announcing struct {
	brokersiface.Broker
	options fleet.Options
	ready   func()
}

func (b announcing) StartConsuming(tag string, concurrency int, p brokersiface.TaskProcessor) (bool, error) {
	fleet.WhenConsuming(b.options, b.ready)
	return b.Broker.StartConsuming(tag, concurrency, p)
}
