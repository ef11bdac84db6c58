package v2

import (
	"fmt"

	"github.com/RichardKnop/machinery/v2/tasks"

	"machinery_compat/interop/internal/fleet"
)

// RegisterPeriodic implements fleet.Library.
func (l *Library) RegisterPeriodic(p fleet.Periodic, literal bool) error {
	signatures, err := decodeAll(p.Signatures, literal)
	if err != nil {
		return err
	}
	switch p.Kind {
	case "task":
		return l.server.RegisterPeriodicTask(p.Spec, p.Name, signatures[0])
	case "chain":
		return l.server.RegisterPeriodicChain(p.Spec, p.Name, signatures...)
	case "group":
		return l.server.RegisterPeriodicGroup(p.Spec, p.Name, p.Concurrency, signatures...)
	case "chord":
		return l.registerPeriodicChord(p, signatures, literal)
	}
	return fmt.Errorf("unknown kind %q", p.Kind)
}

func (l *Library) registerPeriodicChord(p fleet.Periodic, signatures []*tasks.Signature, literal bool) error {
	callback, err := decode(p.Callback, literal)
	if err != nil {
		return err
	}
	return l.server.RegisterPeriodicChord(p.Spec, p.Name, p.Concurrency, callback, signatures...)
}

// Lock implements fleet.Library.
func (l *Library) Lock(key string, until int64, retry bool) error {
	if retry {
		return l.lock.LockWithRetries(key, until)
	}
	return l.lock.Lock(key, until)
}
