// Command api prints every exported name of Machinery, one a line: the version, the package's path
// within the module, and the name (Type.Member for methods and fields).
//
//	v2 tasks Signature.RetryCount
//
// It reads the sources of the modules that go.mod names, so nothing can be missing.
package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// roots are where the packages of a version begin: the module and the folder in it.
var roots = []struct{ version, module, folder string }{
	{"v1", "github.com/RichardKnop/machinery", "v1"},
	{"v2", "github.com/RichardKnop/machinery/v2", "."},
}

// leftOut are programs and tests, which nobody imports.
var leftOut = map[string]bool{"example": true, "integration-tests": true, "testdata": true}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	for _, root := range roots {
		directory, err := moduleDirectory(root.module)
		if err != nil {
			return err
		}
		if err := printNames(root.version, filepath.Join(directory, root.folder)); err != nil {
			return err
		}
	}
	return nil
}

func moduleDirectory(module string) (string, error) {
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	directory := strings.TrimSpace(string(output))
	if directory == "" {
		return "", errors.New(module + " is not downloaded")
	}
	return directory, nil
}

func printNames(version, root string) error {
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		// Folders with a go.mod of their own are other modules.
		if _, err := os.Stat(filepath.Join(file, "go.mod")); file != root && err == nil {
			return fs.SkipDir
		}
		if leftOut[entry.Name()] || entry.Name() == "v1" && version == "v2" {
			return fs.SkipDir
		}
		names, err := namesIn(file)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		for _, name := range names {
			fmt.Println(version, path.Join("machinery", filepath.ToSlash(relative)), name)
		}
		return nil
	})
}

// namesIn are the exported names of the package in a folder, sorted.
func namesIn(directory string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(directory, "*.go"))
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if file.Name.Name == "main" {
			continue
		}
		for _, declaration := range file.Decls {
			for _, exported := range declared(declaration) {
				found[exported] = true
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

func declared(declaration ast.Decl) []string {
	switch known := declaration.(type) {
	case *ast.FuncDecl:
		return function(known)
	case *ast.GenDecl:
		var names []string
		for _, spec := range known.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				names = append(names, exported("", spec.Names)...)
			case *ast.TypeSpec:
				names = append(names, typeNames(spec)...)
			}
		}
		return names
	}
	return nil
}

// function is a function's name, or that of a method of an exported type.
func function(declaration *ast.FuncDecl) []string {
	owner := ""
	if declaration.Recv != nil {
		owner = typeName(declaration.Recv.List[0].Type)
		if !ast.IsExported(owner) {
			return nil
		}
		owner += "."
	}
	return exported(owner, []*ast.Ident{declaration.Name})
}

// typeNames are an exported type's name and its members: fields, methods of an interface, what it embeds.
func typeNames(spec *ast.TypeSpec) []string {
	if !spec.Name.IsExported() {
		return nil
	}
	names := []string{spec.Name.Name}
	var members *ast.FieldList
	switch kind := spec.Type.(type) {
	case *ast.StructType:
		members = kind.Fields
	case *ast.InterfaceType:
		members = kind.Methods
	default:
		return names
	}
	for _, member := range members.List {
		names = append(names, exported(spec.Name.Name+".", member.Names)...)
		if embedded := typeName(member.Type); len(member.Names) == 0 && ast.IsExported(embedded) {
			names = append(names, spec.Name.Name+"."+embedded)
		}
	}
	return names
}

func exported(prefix string, identifiers []*ast.Ident) []string {
	var names []string
	for _, identifier := range identifiers {
		if identifier.IsExported() {
			names = append(names, prefix+identifier.Name)
		}
	}
	return names
}

// typeName is the last word of a type: Server of *machinery.Server.
func typeName(expression ast.Expr) string {
	switch known := expression.(type) {
	case *ast.Ident:
		return known.Name
	case *ast.StarExpr:
		return typeName(known.X)
	case *ast.SelectorExpr:
		return known.Sel.Name
	}
	return ""
}
