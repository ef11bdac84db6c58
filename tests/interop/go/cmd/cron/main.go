// Command cron says what robfig/cron, which Machinery's periodic tasks use, makes of a spec.
//
// It reads one JSON object a line, {"spec":"...","now":"2024-02-28T23:59:30.5Z","zone":"...","count":4},
// parses the spec as Machinery does, asks for successive times, and answers with one line of Unix
// seconds, {"next":[...],"error":"..."}; a schedule that never comes ends the list. The zone is that
// of the times asked about.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/robfig/cron/v3"
)

type request struct {
	Spec  string `json:"spec"`
	Now   string `json:"now"`
	Zone  string `json:"zone"`
	Count int    `json:"count"`
}

type answer struct {
	Next  []int64 `json:"next"`
	Error string  `json:"error"`
}

func schedule(asked request) (result answer) {
	defer func() {
		if e := recover(); e != nil {
			result.Error = fmt.Sprint("panic: ", e)
		}
	}()
	result.Next = []int64{}
	spec, err := cron.ParseStandard(asked.Spec)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	zone, err := time.LoadLocation(asked.Zone)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	now, err := time.Parse(time.RFC3339Nano, asked.Now)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	now = now.In(zone)
	for i := 0; i < asked.Count; i++ {
		now = spec.Next(now)
		if now.IsZero() {
			return result
		}
		result.Next = append(result.Next, now.Unix())
	}
	return result
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			fmt.Fprintln(os.Stderr, "cron:", err)
			os.Exit(2)
		}
		if err := out.Encode(schedule(asked)); err != nil {
			fmt.Fprintln(os.Stderr, "cron:", err)
			os.Exit(2)
		}
	}
}
