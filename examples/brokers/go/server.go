package main

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
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
)

// newServer does what machinery.NewServer of v1 does with the URLs; v2 leaves it to the program.
func newServer() (*machinery.Server, error) {
	cnf, err := configuration()
	if err != nil {
		return nil, err
	}
	broker, err := newBroker(cnf)
	if err != nil {
		return nil, err
	}
	backend, err := newBackend(cnf)
	if err != nil {
		return nil, err
	}
	return machinery.NewServer(cnf, broker, backend, eagerlock.New()), nil
}

func configuration() (*config.Config, error) {
	if path := os.Getenv("MACHINERY_CONFIG"); path != "" {
		return config.NewFromYaml(path, false)
	}
	cnf, err := config.NewFromEnvironment()
	if err != nil {
		return nil, err
	}
	// Machinery switches TLS on for every configuration from the environment.
	cnf.TLSConfig = nil
	return cnf, nil
}

func newBroker(cnf *config.Config) (brokersiface.Broker, error) {
	scheme, rest, _ := strings.Cut(cnf.Broker, "://")
	switch scheme {
	case "redis":
		address, err := parseRedis(cnf.Broker)
		if err != nil {
			return nil, err
		}
		if address.severalServers(cnf) {
			return redisbroker.NewGR(cnf, address.servers(), address.db), nil
		}
		return redisbroker.New(cnf, address.hosts, address.user, address.password, "", address.db), nil
	case "amqp":
		return amqpbroker.New(cnf), nil
	case "http", "https":
		return sqsbroker.New(cnf)
	case "gcppubsub":
		project, subscription, _ := strings.Cut(rest, "/")
		return pubsubbroker.New(cnf, project, subscription)
	}
	return nil, fmt.Errorf("no broker for %q URLs", scheme)
}

func newBackend(cnf *config.Config) (backendsiface.Backend, error) {
	scheme, rest, _ := strings.Cut(cnf.ResultBackend, "://")
	switch scheme {
	case "redis":
		address, err := parseRedis(cnf.ResultBackend)
		if err != nil {
			return nil, err
		}
		if address.severalServers(cnf) {
			return redisbackend.NewGR(cnf, address.servers(), address.db), nil
		}
		return redisbackend.New(cnf, address.hosts, address.user, address.password, "", address.db), nil
	case "amqp":
		return amqpbackend.New(cnf), nil
	case "memcache":
		return memcachebackend.New(cnf, strings.Split(rest, ",")), nil
	case "mongodb":
		return mongobackend.New(cnf)
	case "https":
		return dynamodbbackend.New(cnf)
	}
	return nil, fmt.Errorf("no result backend for %q URLs", scheme)
}

// redisURL is redis://[user:password@]host:port[,host:port…][/db] in parts.
type redisURL struct {
	hosts, user, password string
	db                    int
}

func parseRedis(raw string) (redisURL, error) {
	rest := strings.TrimPrefix(raw, "redis://")
	account, servers, found := cutLast(rest, "@")
	if !found {
		account, servers = "", rest
	}
	hosts, path, _ := strings.Cut(servers, "/")
	parsed := redisURL{hosts: hosts}
	var both bool
	if parsed.user, parsed.password, both = strings.Cut(account, ":"); !both {
		// A word alone is a password.
		parsed.user, parsed.password = "", account
	}
	var err error
	if !strings.Contains(hosts, ",") {
		// Of one server, they are percent-encoded.
		if parsed.user, err = url.PathUnescape(parsed.user); err != nil {
			return parsed, err
		}
		if parsed.password, err = url.PathUnescape(parsed.password); err != nil {
			return parsed, err
		}
	}
	if path != "" {
		parsed.db, err = strconv.Atoi(path)
	}
	return parsed, err
}

func cutLast(text, separator string) (string, string, bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}

// severalServers says whether the URL names sentinels, or nodes of a cluster: the driver is go-redis then.
func (u redisURL) severalServers(cnf *config.Config) bool {
	if strings.Contains(u.hosts, ",") {
		return true
	}
	return cnf.Redis != nil && (cnf.Redis.MasterName != "" || cnf.Redis.ClusterEnabled)
}

// servers are the addresses as go-redis's constructor takes them: the first one carries the credentials.
func (u redisURL) servers() []string {
	hosts := u.hosts
	if u.password != "" {
		hosts = u.password + "@" + hosts
		if u.user != "" {
			hosts = u.user + ":" + hosts
		}
	}
	return strings.Split(hosts, ",")
}
