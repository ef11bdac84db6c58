// Package libraries chooses the version of Machinery that a flavor asks for.
package libraries

import (
	"strings"

	"machinery_compat/interop/internal/fleet"
	v1 "machinery_compat/interop/internal/v1"
	v2 "machinery_compat/interop/internal/v2"
)

// Open connects with the flavor's library and registers the tasks with it.
func Open(options fleet.Options) (fleet.Library, error) {
	library, err := open(options)
	if err != nil {
		return nil, err
	}
	journal, err := fleet.OpenJournal(options.Journal)
	if err != nil {
		return nil, err
	}
	return library, library.Register(fleet.Tasks(library, options, journal))
}

func open(options fleet.Options) (fleet.Library, error) {
	if strings.HasPrefix(options.Flavor, "v1-") {
		return v1.New(options)
	}
	return v2.New(options)
}
