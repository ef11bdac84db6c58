package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/RichardKnop/machinery/v2"
	"github.com/RichardKnop/machinery/v2/tasks"
)

const concurrency = 2

// registered are the tasks of this worker. The names without "go_" are known to Python too.
var registered = map[string]any{
	"go_add":    add,
	"go_divide": divide,
	"go_stats":  stats,
	"go_flaky":  flaky,
	"add":       add,
	"flaky":     flaky,
}

func add(numbers ...int64) (int64, error) {
	var sum int64
	for _, number := range numbers {
		sum += number
	}
	return sum, nil
}

func divide(dividend, divisor int64) (int64, error) {
	if divisor == 0 {
		return 0, errors.New("cannot divide by zero, says Go")
	}
	return dividend / divisor, nil
}

// stats has two results; Python gets them as a tuple.
func stats(samples []float64) (float64, int64, error) {
	var sum float64
	for _, sample := range samples {
		sum += sample
	}
	return sum / float64(len(samples)), int64(len(samples)), nil
}

// flaky fails as long as it will be tried again.
func flaky(ctx context.Context) (string, error) {
	left := tasks.SignatureFromContext(ctx).RetryCount
	if left > 0 {
		return "", fmt.Errorf("not yet, %d retries left", left)
	}
	return "done at last", nil
}

func work(server *machinery.Server) error {
	if err := server.RegisterTasks(registered); err != nil {
		return err
	}
	journal, err := os.OpenFile(os.Getenv("JOURNAL"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	worker := server.NewWorker("go_worker", concurrency)
	// The demo learns from the journal who ran what.
	worker.SetPreTaskHandler(func(signature *tasks.Signature) {
		fmt.Fprintf(journal, "%s Go\n", signature.UUID)
	})
	fmt.Println("ready")
	if err := worker.Launch(); !errors.Is(err, machinery.ErrWorkerQuitGracefully) {
		return err
	}
	return nil
}
