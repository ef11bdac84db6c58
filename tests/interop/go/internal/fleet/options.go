// Package fleet holds what the worker and the client share and what does not depend on the
// version of Machinery: connection flags, the tasks, the journal, the client's commands.
package fleet

import (
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Options are the connection flags of both programs.
type Options struct {
	Flavor       string
	Broker       string
	Backend      string
	Counter      string
	Lock         string
	Queue        string
	CustomQueue  string
	Exchange     string
	ExchangeType string
	BindingKey   string
	DelayedQueue string
	Prefetch     int
	Concurrency  int
	DelayedPoll  int // milliseconds
	Expire       int // seconds
	Journal      string
	Tag          string
	// Of Redis, as in Machinery's configuration.
	MasterName       string
	SentinelPassword string
	Cluster          bool
}

// Flavors are the brokers that can be built, with the version of Machinery that builds them.
var Flavors = []string{"v2-redigo", "v2-goredis", "v2-amqp", "v2-pubsub", "v2-sqs", "v1-redis", "v1-amqp", "v1-pubsub", "v1-sqs"}

// The tables of DynamoDB, as Machinery's configuration has them by default.
const (
	TaskStatesTable = "task_states"
	GroupMetasTable = "group_metas"
)

// ParseOptions reads the command line.
func ParseOptions() (Options, error) {
	var o Options
	flag.StringVar(&o.Flavor, "flavor", "v2-redigo", strings.Join(Flavors, " | "))
	flag.StringVar(&o.Broker, "broker", "", "redis://[user:pass@]host:port/db, amqp://..., gcppubsub://project/subscription or the URL of the SQS queues without the name")
	flag.StringVar(&o.Backend, "backend", "", "URL of the results: redis://, amqp://, memcache://, mongodb:// or https://dynamodb")
	flag.StringVar(&o.Counter, "counter", "", "redis:// URL of the attempt counters (default: the backend)")
	flag.StringVar(&o.Lock, "lock", "", "redis:// URL of the lock (default: v2 the backend if it is Redis, v1 none; v1 needs database 0)")
	flag.StringVar(&o.Queue, "queue", "machinery_tasks", "the default queue")
	flag.StringVar(&o.CustomQueue, "custom-queue", "", "consume this queue instead of the default one")
	flag.StringVar(&o.Exchange, "exchange", "machinery_exchange", "AMQP exchange")
	flag.StringVar(&o.ExchangeType, "exchange-type", "direct", "AMQP exchange type")
	flag.StringVar(&o.BindingKey, "binding-key", "", "AMQP binding key (default: the queue)")
	flag.StringVar(&o.DelayedQueue, "delayed-queue", "", "AMQP queue of delayed tasks (default: one a delay)")
	flag.IntVar(&o.Prefetch, "prefetch", 3, "AMQP prefetch count")
	flag.IntVar(&o.Concurrency, "concurrency", 2, "tasks at a time")
	flag.IntVar(&o.DelayedPoll, "delayed-poll-ms", 100, "pause between two looks at the delayed tasks of Redis")
	flag.IntVar(&o.Expire, "expire", 3600, "seconds that results are kept")
	flag.StringVar(&o.Journal, "journal", "", "file that gets a line for each execution")
	flag.StringVar(&o.Tag, "tag", "go_worker", "consumer tag")
	flag.StringVar(&o.MasterName, "master-name", "", "the redis:// URLs name sentinels of this master")
	flag.StringVar(&o.SentinelPassword, "sentinel-password", "", "the password of the sentinels")
	flag.BoolVar(&o.Cluster, "cluster", false, "the redis:// URLs name nodes of a cluster")
	flag.Parse()
	if o.Broker == "" || o.Backend == "" {
		return o, fmt.Errorf("-broker and -backend are required")
	}
	if o.BindingKey == "" {
		o.BindingKey = o.Queue
	}
	if o.Counter == "" {
		o.Counter = o.Backend
	}
	for _, flavor := range Flavors {
		if flavor == o.Flavor {
			return o, nil
		}
	}
	return o, fmt.Errorf("unknown flavor %q, expected one of %s", o.Flavor, strings.Join(Flavors, ", "))
}

// IsAMQP says whether the broker is RabbitMQ.
func (o Options) IsAMQP() bool { return strings.HasSuffix(o.Flavor, "-amqp") }

// IsSQS says whether the broker is Amazon SQS.
func (o Options) IsSQS() bool { return strings.HasSuffix(o.Flavor, "-sqs") }

// Endpoint is the part of the SQS queues' URL that requests are sent to.
func (o Options) Endpoint() (string, error) {
	parsed, err := url.Parse(o.Broker)
	if err != nil {
		return "", err
	}
	return parsed.Scheme + "://" + parsed.Host, nil
}

// WorkerQueue is the queue that a worker consumes.
func (o Options) WorkerQueue() string {
	if o.CustomQueue != "" {
		return o.CustomQueue
	}
	return o.Queue
}

// RedisAddress is a redis:// URL in the parts that Machinery's constructors take.
type RedisAddress struct {
	Host, User, Password string
	DB                   int
}

// ParseRedis takes a redis:// URL apart.
func ParseRedis(raw string) (RedisAddress, error) {
	// A list of servers is no URL for Go: the hosts after the first are set aside.
	list := ""
	if first, others, found := strings.Cut(raw, ","); found {
		hosts, path, _ := strings.Cut(others, "/")
		list, raw = ","+hosts, first+"/"+path
	}
	parsed, err := url.Parse(raw)
	if err != nil {
		return RedisAddress{}, err
	}
	if parsed.Scheme != "redis" {
		return RedisAddress{}, fmt.Errorf("not a redis:// URL: %s", raw)
	}
	address := RedisAddress{Host: parsed.Host + list}
	if parsed.User != nil {
		var both bool
		address.User = parsed.User.Username()
		if address.Password, both = parsed.User.Password(); !both {
			// A word alone is a password, as in Machinery v1.
			address.User, address.Password = "", address.User
		}
	}
	if path := strings.Trim(parsed.Path, "/"); path != "" {
		if address.DB, err = strconv.Atoi(path); err != nil {
			return RedisAddress{}, fmt.Errorf("not a database number: %s", raw)
		}
	}
	return address, nil
}

// Addresses are those of the go-redis constructors and of the lock.
func (a RedisAddress) Addresses() []string { return strings.Split(a.Joined(), ",") }

// Joined is user:password@host:port, the form of the go-redis constructors and of the lock.
func (a RedisAddress) Joined() string {
	switch {
	case a.User != "":
		return a.User + ":" + a.Password + "@" + a.Host
	case a.Password != "":
		return a.Password + "@" + a.Host
	}
	return a.Host
}
