// Command orders is an application on Machinery v2 that the migration guides start from.
//
//	orders worker             runs the Go tasks
//	orders multiply           calls a Go task
//	orders describe           calls a Python task on the queue of the Python workers
//	orders chain              Go, then Python, then Go
//	orders total              calls a task that a Celery application has, or had
//	orders fail               a Python task that fails
//	orders charge             a Python task that is tried again
//
// It reads Machinery's variables: BROKER and RESULT_BACKEND (redis://host:port/db), DEFAULT_QUEUE.
package main

import (
	"errors"
	"fmt"
	stdlog "log"
	"math"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/RichardKnop/machinery/v2"
	redisbackend "github.com/RichardKnop/machinery/v2/backends/redis"
	"github.com/RichardKnop/machinery/v2/backends/result"
	redisbroker "github.com/RichardKnop/machinery/v2/brokers/redis"
	"github.com/RichardKnop/machinery/v2/config"
	eagerlock "github.com/RichardKnop/machinery/v2/locks/eager"
	"github.com/RichardKnop/machinery/v2/log"
	"github.com/RichardKnop/machinery/v2/tasks"
)

func main() {
	if err := run(strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command string) error {
	server, err := newServer()
	if err != nil {
		return err
	}
	send := map[string]func(*machinery.Server) error{
		"worker": work, "multiply": callMultiply, "describe": callDescribe, "chain": sendChain,
		"total": callTotal, "fail": callFail, "charge": callCharge,
	}[command]
	if send == nil {
		return fmt.Errorf("unknown command %q", command)
	}
	return send(server)
}

func newServer() (*machinery.Server, error) {
	// Standard output is for results.
	log.Set(stdlog.New(os.Stderr, "", stdlog.LstdFlags))
	cnf, err := config.NewFromEnvironment()
	if err != nil {
		return nil, err
	}
	// Machinery switches TLS on for every configuration from the environment.
	cnf.TLSConfig = nil
	address, err := url.Parse(cnf.Broker)
	if err != nil {
		return nil, err
	}
	db, err := strconv.Atoi(strings.TrimPrefix(address.Path, "/"))
	if err != nil {
		return nil, err
	}
	broker := redisbroker.New(cnf, address.Host, "", "", "", db)
	backend := redisbackend.New(cnf, address.Host, "", "", "", db)
	return machinery.NewServer(cnf, broker, backend, eagerlock.New()), nil
}

// Multiply is a task.
func Multiply(numbers ...int64) (int64, error) {
	product := int64(1)
	for _, number := range numbers {
		product *= number
	}
	return product, nil
}

// Shout is a task.
func Shout(text string) (string, error) {
	return strings.ToUpper(text), nil
}

// Total is a task that was Python's before.
func Total(prices []float64, discount float64) (float64, error) {
	sum := 0.0
	for _, price := range prices {
		sum += price
	}
	return math.Round(sum*(1-discount)*100) / 100, nil
}

func work(server *machinery.Server) error {
	err := server.RegisterTasks(map[string]interface{}{
		"multiply":   Multiply,
		"shout":      Shout,
		"shop.total": Total,
	})
	if err != nil {
		return err
	}
	sweep := &tasks.Signature{Name: "sweep", RoutingKey: "python_tasks"}
	err = server.RegisterPeriodicTask("0 6 * * *", "sweep", sweep)
	if err != nil {
		return err
	}
	err = server.NewWorker("orders", 4).Launch()
	if errors.Is(err, machinery.ErrWorkerQuitGracefully) {
		return nil
	}
	return err
}

func callMultiply(server *machinery.Server) error {
	return show(server.SendTask(&tasks.Signature{
		Name: "multiply",
		Args: []tasks.Arg{{Type: "int64", Value: 12}, {Type: "int64", Value: 210}},
	}))
}

func callDescribe(server *machinery.Server) error {
	signature := &tasks.Signature{
		Name:       "describe",
		RoutingKey: "python_tasks",
		Args:       []tasks.Arg{{Type: "string", Value: "Ada"}, {Type: "int64", Value: 2520}},
	}
	return show(server.SendTask(signature))
}

func sendChain(server *machinery.Server) error {
	product := &tasks.Signature{
		Name: "multiply",
		Args: []tasks.Arg{{Type: "int64", Value: 12}, {Type: "int64", Value: 210}},
	}
	described := &tasks.Signature{
		Name:       "describe",
		RoutingKey: "python_tasks",
		Args:       []tasks.Arg{{Type: "string", Value: "Ada"}},
	}
	shouted := &tasks.Signature{Name: "shout", RoutingKey: "machinery_tasks"}
	chain, err := tasks.NewChain(product, described, shouted)
	if err != nil {
		return err
	}
	pending, err := server.SendChain(chain)
	if err != nil {
		return err
	}
	values, err := pending.GetWithTimeout(30*time.Second, 10*time.Millisecond)
	if err != nil {
		return err
	}
	fmt.Println(tasks.HumanReadableResults(values))
	return nil
}

func callTotal(server *machinery.Server) error {
	signature := &tasks.Signature{
		Name: "shop.total",
		Args: []tasks.Arg{
			{Type: "[]float64", Value: []float64{10.5, 17.5}},
			{Type: "float64", Value: 0.1},
		},
	}
	result, err := server.SendTask(signature)
	if err != nil {
		return err
	}
	values, err := result.Get(100 * time.Millisecond) // 25.2
	if err != nil {
		return err
	}
	fmt.Println(tasks.HumanReadableResults(values))
	return nil
}

func callFail(server *machinery.Server) error {
	err := show(server.SendTask(&tasks.Signature{Name: "refund", RoutingKey: "python_tasks"}))
	fmt.Println("error:", err)
	return nil
}

func callCharge(server *machinery.Server) error {
	signature := &tasks.Signature{Name: "charge", RoutingKey: "python_tasks", RetryCount: 3}
	return show(server.SendTask(signature))
}

func show(pending *result.AsyncResult, err error) error {
	if err != nil {
		return err
	}
	values, err := pending.GetWithTimeout(30*time.Second, 10*time.Millisecond)
	if err != nil {
		return err
	}
	fmt.Println(tasks.HumanReadableResults(values))
	return nil
}
