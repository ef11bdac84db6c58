// Command worker runs the tasks of the interoperability tests with Go Machinery. It prints
// "ready" when it consumes, logs to standard error and ends gracefully on SIGTERM.
package main

import (
	"fmt"
	"os"
	"sync"

	"machinery_compat/interop/internal/fleet"
	"machinery_compat/interop/internal/libraries"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	options, err := fleet.ParseOptions()
	if err != nil {
		return err
	}
	library, err := libraries.Open(options)
	if err != nil {
		return err
	}
	// Machinery starts to consume again after each broker error.
	var once sync.Once
	return library.Work(func() { once.Do(func() { fmt.Println("ready") }) })
}
