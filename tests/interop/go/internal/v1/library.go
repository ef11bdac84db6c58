// Package v1 drives Machinery v1, whose servers are built by factories from URLs.
package v1

import (
	stdlog "log"
	"os"
	"strings"

	machinery "github.com/RichardKnop/machinery/v1"
	"github.com/RichardKnop/machinery/v1/brokers/eager"
	brokersiface "github.com/RichardKnop/machinery/v1/brokers/iface"
	"github.com/RichardKnop/machinery/v1/config"
	locksiface "github.com/RichardKnop/machinery/v1/locks/iface"
	"github.com/RichardKnop/machinery/v1/log"
	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/dynamodb"
	"github.com/aws/aws-sdk-go/service/sqs"

	"machinery_compat/interop/internal/fleet"
)

// Library is a server of Machinery v1.
type Library struct {
	options fleet.Options
	server  *machinery.Server
	lock    locksiface.Lock
}

// New connects as the URLs say.
func New(options fleet.Options) (*Library, error) {
	// Standard output belongs to the programs.
	log.Set(stdlog.New(os.Stderr, "", stdlog.LstdFlags|stdlog.Lmicroseconds))
	cnf := configuration(options)
	if options.IsSQS() {
		amazon, err := sqsConfiguration(options)
		if err != nil {
			return nil, err
		}
		cnf.SQS = amazon
	}
	broker, err := machinery.BrokerFactory(cnf)
	if err != nil {
		return nil, err
	}
	backend, err := machinery.BackendFactory(cnf)
	if err != nil {
		return nil, err
	}
	lock, err := machinery.LockFactory(cnf)
	if err != nil {
		return nil, err
	}
	server := machinery.NewServerWithBrokerBackendLock(cnf, broker, backend, lock)
	if mode, ok := broker.(eager.Mode); ok {
		// As machinery.NewServer does: whoever sends a task runs it.
		mode.AssignWorker(server.NewWorker("eager", 0))
	}
	return &Library{options: options, server: server, lock: lock}, nil
}

func configuration(options fleet.Options) *config.Config {
	return &config.Config{
		Broker:          options.Broker,
		ResultBackend:   options.Backend,
		Lock:            options.Lock,
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
			ClusterMode:            options.Cluster,
		},
		DynamoDB: &config.DynamoDBConfig{
			Client:          dynamoDB(options),
			TaskStatesTable: fleet.TaskStatesTable,
			GroupMetasTable: fleet.GroupMetasTable,
		},
	}
}

// dynamoDB goes where AWS's variable says, which this version of its library does not read.
func dynamoDB(options fleet.Options) *dynamodb.DynamoDB {
	if !strings.HasPrefix(options.Backend, "https://dynamodb") {
		return nil
	}
	endpoint := aws.NewConfig().WithEndpoint(os.Getenv("AWS_ENDPOINT_URL_DYNAMODB"))
	return dynamodb.New(session.Must(session.NewSession()), endpoint)
}

// sqsConfiguration takes the region and the credentials from the environment, and the endpoint from the URL.
func sqsConfiguration(options fleet.Options) (*config.SQSConfig, error) {
	endpoint, err := options.Endpoint()
	if err != nil {
		return nil, err
	}
	made, err := session.NewSession(&aws.Config{Endpoint: aws.String(endpoint)})
	if err != nil {
		return nil, err
	}
	return &config.SQSConfig{Client: sqs.New(made), WaitTimeSeconds: 1}, nil
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
