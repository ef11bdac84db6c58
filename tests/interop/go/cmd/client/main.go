// Command client sends tasks and reads results with Go Machinery: one JSON command a line on
// standard input, one JSON answer a line on standard output.
package main

import (
	"fmt"
	"os"

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
	return fleet.Serve(library, os.Stdin, os.Stdout)
}
