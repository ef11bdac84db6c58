package fleet

import (
	"fmt"
	"os"
	"sync"
)

// Journal counts executions across processes: a line for each, in one write to an append-only
// file, so that lines of several workers never mix. A nil Journal writes nothing.
type Journal struct {
	file  *os.File
	mutex sync.Mutex
}

// OpenJournal opens the file, or gives nil for an empty path.
func OpenJournal(path string) (*Journal, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &Journal{file: file}, nil
}

// Executed notes that a task runs now.
func (j *Journal) Executed(uuid, name string) error {
	if j == nil {
		return nil
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	_, err := j.file.WriteString(fmt.Sprintf("%s %s go\n", uuid, name))
	return err
}
