// Command demo is the Go half of `make demo`: a worker and a sender, both with Machinery v2.
//
//	demo worker    runs the tasks of tasks.go; prints "ready" when it takes tasks
//	demo send      sends the tasks of send.go; prints one JSON line for each answer
//
// Both read BROKER (redis://host:port), RESULT_BACKEND and DEFAULT_QUEUE.
package main

import (
	"errors"
	"fmt"
	stdlog "log"
	"net/url"
	"os"

	"github.com/RichardKnop/machinery/v2"
	redisbackend "github.com/RichardKnop/machinery/v2/backends/redis"
	redisbroker "github.com/RichardKnop/machinery/v2/brokers/redis"
	"github.com/RichardKnop/machinery/v2/config"
	eagerlock "github.com/RichardKnop/machinery/v2/locks/eager"
	"github.com/RichardKnop/machinery/v2/log"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("usage: demo worker|send")
	}
	server, err := newServer()
	if err != nil {
		return err
	}
	switch arguments[0] {
	case "worker":
		return work(server)
	case "send":
		return send(server, os.Stdout)
	}
	return fmt.Errorf("unknown command %q", arguments[0])
}

func newServer() (*machinery.Server, error) {
	// Standard output is read by the demo.
	log.Set(stdlog.New(os.Stderr, "", stdlog.LstdFlags))
	broker, err := hostOf("BROKER")
	if err != nil {
		return nil, err
	}
	backend, err := hostOf("RESULT_BACKEND")
	if err != nil {
		return nil, err
	}
	cnf := &config.Config{
		Broker:          os.Getenv("BROKER"),
		ResultBackend:   os.Getenv("RESULT_BACKEND"),
		DefaultQueue:    os.Getenv("DEFAULT_QUEUE"),
		ResultsExpireIn: 3600,
		Redis: &config.RedisConfig{
			MaxIdle:                3,
			IdleTimeout:            240,
			ReadTimeout:            15,
			WriteTimeout:           15,
			ConnectTimeout:         15,
			NormalTasksPollPeriod:  1000,
			DelayedTasksPollPeriod: 100,
		},
	}
	return machinery.NewServer(
		cnf,
		redisbroker.New(cnf, broker, "", "", "", 0),
		redisbackend.New(cnf, backend, "", "", "", 0),
		eagerlock.New(),
	), nil
}

// hostOf gives host:port of the redis:// URL in a variable: Machinery v2 takes no URLs here.
func hostOf(variable string) (string, error) {
	address, err := url.Parse(os.Getenv(variable))
	if err != nil {
		return "", err
	}
	if address.Scheme != "redis" || address.Host == "" {
		return "", fmt.Errorf("%s must be redis://host:port", variable)
	}
	return address.Host, nil
}
