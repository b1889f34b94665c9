# santui: a cockpit over a pair of replicating storage nodes. `make help` lists the targets.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1-dev)
LDFLAGS  := -X example.com/santui/agent.Version=$(VERSION) -X example.com/santui/cmd/internal/cli.Version=$(VERSION)
FUZZTIME ?= 30s
LABLONG  := ^TestLong
# How many labs of two kernels run side by side: half of a test is waiting.
LABS     ?= 2
CONFORMED := $(CURDIR)/bin/conformance
# The packages that have tests with build tag root: the one that takes longest, mostly waiting, and the others beside it.
ROOTPKGS := ./cmd/santui ./datapath/block ./datapath/export/... ./datapath/meta ./lvmops ./agent ./agent/drbdconf ./agent/service
SEEDS    ?= 1000
FROM     ?= 1000
ROUNDS   ?= 3
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
# The same for tests, vet and what they build: a second way to compile everything costs a minute.
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)
LINTBIN  := $(shell $(GO) env GOPATH)/bin/golangci-lint-v2.15.0

# What Debian packages the targets need beyond Go. Installed as root, with a word about it, when a program is missing.
DEMO_PKGS := e2fsprogs fuse3 util-linux mount
TEST_PKGS := $(DEMO_PKGS) user-mode-linux drbd-utils lvm2 xfsprogs thin-provisioning-tools iproute2 libwrap0 openssh-client \
             busybox-static dash dbus systemd tmux nfs-kernel-server fio libnbd-bin qemu-utils procps kmod zstd

.PHONY: help build demo test unit root lab labtest lablong conformance bench labbench fuzz torture lint screenshots clean demo-deps test-deps

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/santui, bin/santui-agent, bin/santui-lab
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo: demo-deps build ## an embedded pair on this machine: cockpit in a terminal, a scripted drill without one (root)
	bin/santui demo $(DEMO)

unit: ## tests without root or outside state, under 2 minutes
	$(GO) vet ./...
	$(GO) test -parallel 6 ./...

root: test-deps build ## tests with loop, FUSE, mounts and the real binaries on this machine (root)
	$(GO) vet -tags root ./...
	$(GO) test -tags root -count=1 -p 2 -timeout 15m $(ROOTPKGS)

labtest: test-deps build ## tests in the lab of two real kernels (root)
	$(GO) vet -tags lab ./...
	$(GO) test -tags lab -count=1 -p 1 -parallel $(LABS) -timeout 40m -skip '$(LABLONG)' ./cmd/santui-lab/... ./datapath/export/...

lablong: test-deps build ## the long lab tests (TestLong...): checks, verbs and faults, power cuts, features beside the kernel; over an hour (root)
	SANTUI_CONFORMANCE=$(CONFORMED) $(GO) test -tags lab -count=1 -p 1 -parallel $(LABS) -timeout 150m -run '$(LABLONG)' ./cmd/santui-lab/...

conformance: test-deps build ## datapath/CONFORMANCE.md, from engine and lab tests that run now and what lablong showed since (root)
	SANTUI_CONFORMANCE=$(CONFORMED) $(GO) test -count=1 ./datapath
	SANTUI_CONFORMANCE=$(CONFORMED) $(GO) test -tags lab -count=1 -p 1 -parallel $(LABS) -timeout 40m -skip '$(LABLONG)' ./cmd/santui-lab/...
	$(GO) run ./datapath/conformance/merge $(CONFORMED)
	rm -f $(CONFORMED)

test: unit root labtest ## every test but the long ones of the lab (root; installs what it needs)

lab: test-deps build ## start the two-kernel lab and say how to use it (root)
	bin/santui-lab up

bench: ## the engine against its disk, as ratios within one run (BENCH='-dir /mnt/disk -rounds 9' for flags)
	$(GO) run ./datapath/bench $(BENCH)

labbench: test-deps build ## santui against the kernel's DRBD in the lab, as ratios within one run: 4k writes, full sync (root; ROUNDS=3)
	$(GO) test -tags lab -count=1 -timeout 60m -run '^$$' -bench '^BenchmarkBesideKernel$$' -benchtime 1x ./cmd/santui-lab/lab -lab-rounds $(ROUNDS)

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$p; done; done

torture: ## two engines through SEEDS (1000) lives of cut power, cables and disks, from seed FROM on
	$(GO) test ./datapath/torture -run TestTorture -count=1 -v -timeout 0 -seeds $(SEEDS) -from $(FROM)

lint: ## golangci-lint, pinned; the import arrows are among its rules
	@test -x $(LINTBIN) || { echo "building golangci-lint v2.15.0 (some minutes, once)"; \
	  mkdir -p $(dir $(LINTBIN)) && tmp=$$(mktemp -d) && GOBIN=$$tmp $(GO) install $(LINT) && mv $$tmp/golangci-lint $(LINTBIN) && rm -rf $$tmp; }
	$(LINTBIN) run --build-tags root,lab ./...

screenshots: build ## pictures of the real screens, from recorded states
	$(GO) run ./tui/internal/shots

clean: ## remove what build made
	rm -rf bin

demo-deps:
	@.ci/need $(DEMO_PKGS)

test-deps:
	@.ci/need $(TEST_PKGS)
