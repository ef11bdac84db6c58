// Command fleet is the Go half of these examples: a worker and a caller with Machinery v2, on each of its brokers.
//
//	fleet worker    runs the tasks
//	fleet call      calls them, whoever runs them
//	fleet check     calls one, for health checks
//
// Both read the YAML file that MACHINERY_CONFIG names, else Machinery's variables: BROKER, RESULT_BACKEND, DEFAULT_QUEUE…
package main

import (
	"errors"
	"fmt"
	stdlog "log"
	"os"
	"strings"
	"time"

	"github.com/RichardKnop/machinery/v2"
	"github.com/RichardKnop/machinery/v2/log"
	"github.com/RichardKnop/machinery/v2/tasks"
)

const (
	concurrency = 2
	timeout     = 30 * time.Second
	pause       = 10 * time.Millisecond
)

func main() {
	if err := run(strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command string) error {
	// Standard output is for results.
	log.Set(stdlog.New(os.Stderr, "", stdlog.LstdFlags))
	program := map[string]func(*machinery.Server) error{"worker": work, "call": call, "check": greet}[command]
	if program == nil {
		return fmt.Errorf("usage: fleet worker|call|check, not %q", command)
	}
	server, err := newServer()
	if err != nil {
		return err
	}
	return program(server)
}

// Greet is a task.
func Greet(name string) (string, error) {
	return "Hello " + name + ", says Go", nil
}

// Add is a task.
func Add(numbers ...int64) (int64, error) {
	var sum int64
	for _, number := range numbers {
		sum += number
	}
	return sum, nil
}

// Refuse is a task that fails.
func Refuse(reason string) error {
	return errors.New(reason)
}

func work(server *machinery.Server) error {
	err := server.RegisterTasks(map[string]interface{}{"greet": Greet, "add": Add, "refuse": Refuse})
	if err != nil {
		return err
	}
	err = server.NewWorker("go", concurrency).Launch()
	if errors.Is(err, machinery.ErrWorkerQuitGracefully) {
		return nil
	}
	return err
}

func call(server *machinery.Server) error {
	if err := greet(server); err != nil {
		return err
	}

	// (1 + 2) + (3 + 4), the two sums side by side
	group, err := tasks.NewGroup(sum(1, 2), sum(3, 4))
	if err != nil {
		return err
	}
	chord, err := tasks.NewChord(group, sum())
	if err != nil {
		return err
	}
	total, err := server.SendChord(chord, 0)
	if err != nil {
		return err
	}
	values, err := total.GetWithTimeout(timeout, pause)
	if err != nil {
		return err
	}
	fmt.Println("chord:", tasks.HumanReadableResults(values))

	refusal, err := server.SendTask(&tasks.Signature{
		Name: "refuse",
		Args: []tasks.Arg{{Type: "string", Value: "not today"}},
	})
	if err != nil {
		return err
	}
	_, err = refusal.GetWithTimeout(timeout, pause)
	fmt.Println("error:", err)
	return nil
}

func greet(server *machinery.Server) error {
	greeting, err := server.SendTask(&tasks.Signature{
		Name: "greet",
		Args: []tasks.Arg{{Type: "string", Value: "Ada"}},
	})
	if err != nil {
		return err
	}
	values, err := greeting.GetWithTimeout(timeout, pause)
	if err != nil {
		return err
	}
	fmt.Println("task:", tasks.HumanReadableResults(values))
	return nil
}

func sum(numbers ...int64) *tasks.Signature {
	signature := &tasks.Signature{Name: "add"}
	for _, number := range numbers {
		signature.Args = append(signature.Args, tasks.Arg{Type: "int64", Value: number})
	}
	return signature
}
