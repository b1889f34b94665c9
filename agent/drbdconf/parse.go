package drbdconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Parse reads a configuration file and what it includes. The error is an ErrorList if the files could be read but say
// something wrong.
func Parse(path string) (*Config, error) {
	p := newParser()
	p.include = readInclude
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the DRBD configuration: %w", err)
	}
	return p.parse(path, text)
}

// ParseReader reads a configuration from r; name stands for it in messages. It refuses includes.
func ParseReader(r io.Reader, name string) (*Config, error) {
	text, err := readAll(r, name)
	if err != nil {
		return nil, fmt.Errorf("reading the DRBD configuration: %w", err)
	}
	return newParser().parse(name, text)
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // read only
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	return readAll(f, path)
}

func readAll(r io.Reader, name string) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return string(b), nil
}

// included is one file that an include names.
type included struct {
	path string
	id   string // the same for the same file under another name
}

// readInclude finds the files of an include: relative to the folder of the file that says it, as drbdadm does.
func readInclude(from, pattern string) ([]included, error) {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(from), pattern)
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 && !strings.ContainsAny(pattern, "*?[") {
		return nil, fs.ErrNotExist
	}
	var out []included
	for _, path := range paths {
		id, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, err
		}
		out = append(out, included{path, id})
	}
	return out, nil
}

// parser reads files into resources. It goes on after a mistake in a value, and stops at one in the syntax.
type parser struct {
	include func(from, pattern string) ([]included, error) // nil refuses includes

	files   []string
	seen    map[string]bool
	sources map[string]*source
	errs    ErrorList

	conf      Config
	common    *Resource
	resources map[string]*Resource
}

func newParser() *parser {
	return &parser{seen: map[string]bool{}, sources: map[string]*source{}, resources: map[string]*Resource{}, common: newResource("common", Pos{})}
}

func newResource(name string, at Pos) *Resource {
	return &Resource{Name: name, Pos: at, Handlers: map[string]string{}, set: map[key]value{}}
}

func (p *parser) parse(name, text string) (*Config, error) {
	p.seen[name] = true
	if id, err := filepath.EvalSymlinks(name); err == nil && p.include != nil {
		p.seen[id] = true
	}
	err := p.file(name, text, 0)
	if err == nil && len(p.errs) == 0 {
		p.finish()
	}
	if len(p.errs) > 0 {
		return nil, p.sortedErrors()
	}
	p.conf.Files = p.files
	return &p.conf, nil
}

// file reads one file.
func (p *parser) file(name, text string, depth int) error {
	src := newSource(name, text)
	p.files = append(p.files, name)
	p.sources[name] = src
	l := &lexer{p: p, src: src, line: 1}
	for {
		t, err := l.next()
		if err != nil {
			return err
		}
		if t.kind == tokEOF {
			return nil
		}
		if err := p.topLevel(l, t, depth); err != nil {
			return err
		}
	}
}

var topWords = []string{"global", "common", "resource", "skip", "include"}

func (p *parser) topLevel(l *lexer, t token, depth int) error {
	switch {
	case t.kind != tokWord:
	case t.text == "global":
		return p.block(l, func(t token) error { return p.global(l, t) })
	case t.text == "common":
		return p.block(l, func(t token) error { return p.commonBody(l, t) })
	case t.text == "skip":
		return p.skip(l)
	case t.text == "include":
		return p.includeFiles(l, depth)
	case t.text == "resource":
		return p.resource(l)
	}
	hint := ""
	if c := closest(t.text, topWords); c != "" && t.kind == tokWord {
		hint = fmt.Sprintf("did you mean %q?", c)
	} else if t.is("}") {
		hint = "there is one } too many above"
	}
	return p.fail(t.pos, hint, "expected %s, found %s", oneOf(topWords), t.describe())
}

// block reads { ... } and hands each first token of a statement to body.
func (p *parser) block(l *lexer, body func(token) error) error {
	open, err := p.want(l, "{")
	if err != nil {
		return err
	}
	for {
		t, err := l.next()
		switch {
		case err != nil:
			return err
		case t.is("}"):
			return nil
		case t.kind == tokEOF:
			return p.fail(t.pos, fmt.Sprintf("the { in line %d of %s is not closed", open.pos.Line, open.pos.File), "expected }, found the end of the file")
		case t.kind != tokWord:
			return p.fail(t.pos, "", "expected an option or }, found %s", t.describe())
		}
		if err := body(t); err != nil {
			return err
		}
	}
}

// want takes one punctuation mark.
func (p *parser) want(l *lexer, punct string) (token, error) {
	before := l.end
	t, err := l.next()
	if err != nil {
		return t, err
	}
	if t.is(punct) {
		return t, nil
	}
	if punct == ";" && t.pos.Line > before.Line { // point at where it is missing, not at the next line
		return t, p.fail(before, "", "a \";\" is missing at the end of this line")
	}
	return t, p.fail(t.pos, "", "expected %q, found %s", punct, t.describe())
}

// text takes one word or quoted string.
func (p *parser) text(l *lexer, what string) (token, error) {
	t, err := l.next()
	if err != nil {
		return t, err
	}
	if t.kind != tokWord && t.kind != tokQuoted {
		return t, p.fail(t.pos, "", "expected %s, found %s", what, t.describe())
	}
	return t, nil
}

// statement takes one word or quoted string and the semicolon behind it.
func (p *parser) statement(l *lexer, what string) (token, error) {
	t, err := p.text(l, what)
	if err != nil {
		return t, err
	}
	_, err = p.want(l, ";")
	return t, err
}

// skip passes over "skip [name] { ... }".
func (p *parser) skip(l *lexer) error {
	t, err := l.look()
	if err != nil {
		return err
	}
	if t.kind == tokWord || t.kind == tokQuoted {
		if _, err := l.next(); err != nil {
			return err
		}
	}
	return p.skipBlock(l)
}

// skipBlock passes over { ... } with whatever is in it.
func (p *parser) skipBlock(l *lexer) error {
	open, err := p.want(l, "{")
	if err != nil {
		return err
	}
	for level := 1; level > 0; {
		t, err := l.next()
		switch {
		case err != nil:
			return err
		case t.kind == tokEOF:
			return p.fail(open.pos, "", "this { is not closed")
		case t.is("{"):
			level++
		case t.is("}"):
			level--
		}
	}
	return nil
}

func (p *parser) includeFiles(l *lexer, depth int) error {
	t, err := p.statement(l, "the name of a file")
	if err != nil {
		return err
	}
	if p.include == nil {
		return p.fail(t.pos, "", "include is not possible here")
	}
	if depth >= maxInclude {
		return p.fail(t.pos, "", "includes are nested more than %d deep", maxInclude)
	}
	files, err := p.include(l.src.name, t.text)
	if err != nil {
		p.errorf(t.pos, "", "cannot include %q: %v", t.text, cause(err))
		return nil
	}
	for _, f := range files {
		if p.seen[f.id] { // as drbdadm: a file counts once
			continue
		}
		p.seen[f.id] = true
		if len(p.files) >= maxFiles {
			return p.fail(t.pos, "", "more than %d files", maxFiles)
		}
		text, err := readFile(f.path)
		if err != nil {
			p.errorf(t.pos, "", "cannot include %s: %v", f.path, cause(err))
			continue
		}
		if err := p.file(f.path, text, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// cause drops the path that a file system error repeats.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (p *parser) global(l *lexer, t token) error {
	_, _, err := p.option(l, "global", t)
	return err
}

// sections are the blocks of options within a resource or common.
var sections = []string{"net", "disk", "syncer", "startup", "handlers", "options"}

func (p *parser) commonBody(l *lexer, t token) error {
	switch {
	case t.text == "protocol":
		return p.setOption(l, p.common, "net", t)
	case t.text == "incon-degr-cmd":
		return p.inconDegr(l, p.common)
	case slices.Contains(sections, t.text):
		return p.section(l, p.common, t)
	case t.text == "proxy":
		p.refuse(p.common, t.pos, "proxy", "DRBD Proxy is not in this version", false)
		return p.skipBlock(l)
	}
	return p.unknown(t, "common", append([]string{"protocol"}, sections...))
}

// unknown refuses a statement that a block does not have.
func (p *parser) unknown(t token, block string, known []string) error {
	hint := ""
	if c := closest(t.text, known); c != "" {
		hint = fmt.Sprintf("did you mean %q?", c)
	} else if s := elsewhere(t.text); s != "" {
		hint = fmt.Sprintf("%s belongs in section %s: %s { %s ...; }", t.text, s, s, t.text)
	}
	return p.fail(t.pos, hint, "unknown statement %q in %s", t.text, block)
}

// refuse notes something that this version does not do.
func (p *parser) refuse(r *Resource, at Pos, option, why string, structural bool) {
	r.Unsupported = append(r.Unsupported, Finding{Pos: at, Resource: r.Name, Option: option, Why: why, Refused: true})
	r.structural = r.structural || structural
}

// section reads a block of options.
func (p *parser) section(l *lexer, r *Resource, name token) error {
	return p.block(l, func(t token) error { return p.setOption(l, r, name.text, t) })
}

func (p *parser) setOption(l *lexer, r *Resource, section string, t token) error {
	k, v, err := p.option(l, section, t)
	if err == nil && k.name != "" {
		r.set[k] = v // as in drbdadm the last one counts
	}
	return err
}

// inconDegr is DRBD 0.7's name for a handler.
func (p *parser) inconDegr(l *lexer, r *Resource) error {
	t, err := p.statement(l, "a command in double quotes")
	if err == nil {
		r.set[key{"handlers", "pri-on-incon-degr"}] = value{pos: t.pos, words: []string{t.text}}
	}
	return err
}

// option reads the rest of an option's statement. The key is empty if it was refused; the mistake is noted.
func (p *parser) option(l *lexer, section string, t token) (key, value, error) {
	k, o, no := lookup(section, t.text)
	v := value{pos: t.pos, syncer: section == "syncer"}
	if o != nil && o.kind == kSecret {
		// From here to the semicolon nothing may appear in a message.
		l.src.secrets = append(l.src.secrets, lineRange{t.pos.Line, len(l.src.lines)})
		defer func() { l.src.secrets[len(l.src.secrets)-1].to = l.line }()
	}
	for {
		before := l.end
		w, err := l.next()
		if err != nil {
			return key{}, v, err
		}
		if w.is(";") {
			break
		}
		newLine := w.pos.Line > before.Line
		if newLine && (len(v.words) > 0 || w.kind == tokPunct || w.kind == tokEOF) { // the next line's words are no values
			return key{}, v, p.fail(before, "", "a \";\" is missing at the end of this line")
		}
		if w.kind != tokWord && w.kind != tokQuoted {
			return key{}, v, p.fail(w.pos, "", "expected \";\" behind %s, found %s", t.text, w.describe())
		}
		v.words = append(v.words, w.text)
		if len(v.words) > 32 {
			return key{}, v, p.fail(t.pos, "", "%s has too many values", t.text)
		}
	}
	if o == nil {
		p.unknownOption(section, t)
		return key{}, v, nil
	}
	if no {
		if len(v.words) > 0 {
			p.errorf(t.pos, fmt.Sprintf("write: %s no;", k.name), "%s takes no value", t.text)
			return key{}, v, nil
		}
		v.words = []string{"no"}
	}
	return p.checkOption(k, o, v)
}

func (p *parser) checkOption(k key, o *option, v value) (key, value, error) {
	if len(v.words) == 0 {
		if o.kind != kBool {
			p.errorf(v.pos, "", "%s needs a value", o.name)
			return key{}, v, nil
		}
		v.words = []string{"yes"} // a flag
	}
	if len(v.words) > 1 && o.kind != kWords {
		p.errorf(v.pos, "put it in double quotes if it is one value", "%s takes one value, not %d", o.name, len(v.words))
		return key{}, v, nil
	}
	if o.kind == kSecret {
		v.secret, v.words = newSecret(v.words[0]), nil
	}
	if _, problem, hint := o.check(v); problem != "" {
		p.errorf(v.pos, hint, "%s", problem)
		return key{}, v, nil
	}
	return k, v, nil
}

func (p *parser) unknownOption(section string, t token) {
	hint := ""
	if c := closest(t.text, names(section)); c != "" {
		hint = fmt.Sprintf("did you mean %q?", c)
	}
	if s := elsewhere(t.text); s != "" {
		hint = fmt.Sprintf("%s belongs in section %s", t.text, s)
	}
	p.errorf(t.pos, hint, "unknown option %q in section %s", t.text, section)
}
