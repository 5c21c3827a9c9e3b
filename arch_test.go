package dcnode_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dcnode/dcnode/"

// rooms says which of our packages each package may import. The leaves do not
// know each other: only node, and package migrate inside it, knows more than one.
var rooms = map[string][]string{
	"consensus":               {"consensus/internal/h26"},
	"consensus/internal/h26":  {},
	"consensus/internal/slow": {},
	"consensus/graph":         {"consensus/internal/h26", "consensus/internal/slow"},
	"consensus/consensustest": {"consensus", "consensus/graph", "consensus/internal/h26", "consensus/internal/slow"},
	"consensus/ledger":        {"consensus/ledger/merkle"},
	"consensus/ledger/merkle": {},
	"consensus/ledger/ledgertest": {
		"consensus/ledger", "consensus/ledger/merkle",
	},
	"gossip":                    {},
	"gossip/gossiptest":         {"gossip"},
	"blockstore":                {},
	"blockstore/blockstoretest": {"blockstore"},
	"vmm":                       {},
	"vmm/qmp":                   {},
	"vmm/nbd":                   {},
	"vmm/ramstream":             {},
	"vmm/memvm":                 {"vmm"},
	"vmm/fence":                 {},
	"vmm/qemu":                  {"vmm", "vmm/fence", "vmm/qmp", "vmm/nbd"},
	"vmm/vmmtest":               {"vmm"},
	"node/disk":                 {},
	"node/eventlog":             {"consensus", "node/disk"},
	"node/journal":              {"node/disk"},
	"node/order":                {"consensus", "node/eventlog"},
	"node/order/ordertest":      {"consensus", "gossip", "gossip/gossiptest", "node/order"},
	"node/migrate":              {"vmm", "vmm/ramstream"},
	"node/survey":               {"gossip", "vmm"},
	"node/resume":               {},
	"node/api":                  {"consensus/ledger", "vmm"},
	"node/certificate":          {"consensus", "consensus/ledger"},
	"node": {
		"consensus", "consensus/ledger", "gossip", "blockstore", "vmm", "vmm/ramstream",
		"node/migrate", "node/api", "node/order", "node/eventlog", "node/journal", "node/survey",
		"node/certificate", "node/resume",
	},
	"scripts":                {},
	"testnet/guest":          {"scripts"},
	"testnet/guest/workload": {},
	"testnet/wan":            {},
	"testnet":                {"gossip/gossiptest", "node", "node/api", "consensus/ledger", "testnet/guest", "testnet/wan", "scripts", "vmm", "vmm/memvm"},
	"cmd/dcnode": {
		"node", "node/api", "vmm", "vmm/qemu", "vmm/memvm", "testnet", "consensus/graph", "consensus/ledger",
	},
	"": {},
}

// pure packages compute and do nothing else: no clock, no I/O, no goroutine, no
// randomness, no order that a map makes.
var pure = []string{"consensus", "consensus/internal/h26", "consensus/ledger", "consensus/ledger/merkle"}

// impure are the standard packages that a pure package may not import, and why.
var impure = map[string]string{
	"time": "time is an argument", "math/rand": "randomness is an argument", "math/rand/v2": "randomness is an argument",
	"crypto/rand": "randomness is an argument", "os": "no I/O", "net": "no I/O", "log/slog": "facts are returned, not logged",
	"sync": "one goroutine drives it", "sync/atomic": "one goroutine drives it", "context": "nothing in it waits",
}

const (
	maxFile = 500 // lines
	maxFunc = 80
)

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	for _, dir := range packages(t) {
		allowed, ok := rooms[dir]
		if !ok {
			t.Errorf("package %q has no place in the map of rooms: add it to arch_test.go with what it may import", dir)
			continue
		}
		p, err := build.ImportDir(filepath.FromSlash("./"+dir), 0)
		if err != nil {
			if _, none := err.(*build.NoGoError); !none {
				t.Error(err)
			}
			continue
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which its room does not allow", dir, ours)
			}
			if why, bad := impure[imp]; bad && slices.Contains(pure, dir) {
				t.Errorf("%s imports %s: %s", dir, imp, why)
			}
		}
	}
}

func TestPurePackagesComputeAndNothingElse(t *testing.T) {
	for _, dir := range pure {
		maps := map[string]bool{}
		eachFile(t, dir, false, func(fset *token.FileSet, f *ast.File) { collectMaps(f, maps) })
		eachFile(t, dir, false, func(fset *token.FileSet, f *ast.File) {
			ast.Inspect(f, func(n ast.Node) bool {
				what := ""
				switch n := n.(type) {
				case *ast.GoStmt:
					what = "a goroutine"
				case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
					what = "a channel"
				case *ast.RangeStmt:
					if maps[nameOf(n.X)] {
						what = "a loop over the map " + nameOf(n.X)
					}
				}
				if what != "" {
					t.Errorf("%s: %s in a pure package", fset.Position(n.Pos()), what)
				}
				return true
			})
		})
	}
}

// collectMaps notes the names of fields, variables and parameters that are maps.
func collectMaps(f *ast.File, names map[string]bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			if _, ok := n.Type.(*ast.MapType); ok {
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
		case *ast.ValueSpec:
			if _, ok := n.Type.(*ast.MapType); ok {
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
		case *ast.AssignStmt:
			for i, rhs := range n.Rhs {
				if isMap(rhs) && i < len(n.Lhs) {
					names[nameOf(n.Lhs[i])] = true
				}
			}
		}
		return true
	})
}

func isMap(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CompositeLit:
		_, ok := e.Type.(*ast.MapType)
		return ok
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok && id.Name == "make" && len(e.Args) > 0 {
			_, ok := e.Args[0].(*ast.MapType)
			return ok
		}
	}
	return false
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func TestFilesAndFunctionsKeepTheirSize(t *testing.T) {
	for _, dir := range packages(t) {
		eachFile(t, dir, true, func(fset *token.FileSet, f *ast.File) {
			name := fset.Position(f.Pos()).Filename
			lines := fset.File(f.Pos()).LineCount()
			if lines > maxFile && !strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s has %d lines, more than %d: it holds more than one idea", name, lines, maxFile)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > maxFunc && !strings.HasSuffix(name, "_test.go") {
					t.Errorf("%s: %s has %d lines, more than %d", fset.Position(fn.Pos()), fn.Name.Name, n, maxFunc)
				}
				// The guard is this same program under another name, a test's too: it has
				// to be caught before anything else begins.
				if fn.Name.Name == "init" && fn.Recv == nil && dir != filepath.Join("vmm", "fence") {
					t.Errorf("%s: init runs unasked", fset.Position(fn.Pos()))
				}
			}
		})
	}
}

func TestPackagesAndExportedNamesAreDocumented(t *testing.T) {
	for _, dir := range packages(t) {
		documented, any := false, false
		eachFile(t, dir, false, func(fset *token.FileSet, f *ast.File) {
			any = true
			documented = documented || f.Doc != nil
			for _, d := range f.Decls {
				checkDoc(t, fset, d)
			}
		})
		if any && !documented {
			t.Errorf("package %s has no comment", dir)
		}
	}
}

func checkDoc(t *testing.T, fset *token.FileSet, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d)) {
			t.Errorf("%s: %s is exported and has no comment", fset.Position(d.Pos()), d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil && ts.Comment == nil {
				t.Errorf("%s: %s is exported and has no comment", fset.Position(ts.Pos()), ts.Name.Name)
			}
		}
	}
}

// exportedReceiver: errors, stringers and kinds explain themselves.
func exportedReceiver(d *ast.FuncDecl) bool {
	if slices.Contains([]string{"Error", "Unwrap", "String", "Is", "Kind"}, d.Name.Name) {
		return false
	}
	e := d.Recv.List[0].Type
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.IsExported()
}

// packages are the folders below here that hold Go files.
func packages(t *testing.T) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || own(path)) {
			return filepath.SkipDir
		}
		if dir := filepath.ToSlash(filepath.Dir(path)); strings.HasSuffix(name, ".go") {
			if dir == "." {
				dir = ""
			}
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// own reports whether a folder is a module of its own.
func own(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func eachFile(t *testing.T, dir string, tests bool, visit func(*token.FileSet, *ast.File)) {
	t.Helper()
	entries, err := os.ReadDir(filepath.FromSlash("./" + dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") && !tests {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(filepath.FromSlash("./"+dir), name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		visit(fset, f)
	}
}
