# Everything is built without cgo: one static binary, and one build cache.
export CGO_ENABLED := 0

GO     ?= go
BIN    := bin
FUZZ   ?= 30s
SOURCE := $(shell find . -name '*.go' -not -path './$(BIN)/*' -not -path './bench/*') go.mod go.sum $(wildcard scripts/*.sh)

.PHONY: help build demo test race lint fuzz sim bench-engine bench-consensus bench-plan bench-ledger law model qemu guest compose clean
.DEFAULT_GOAL := help

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: $(BIN)/dcnode $(BIN)/dcnode-guest ## build bin/dcnode and the demo's guest program

$(BIN)/dcnode: $(SOURCE)
	$(GO) build -o $@ ./cmd/dcnode

$(BIN)/dcnode-guest: $(SOURCE)
	$(GO) build -ldflags '-s -w' -o $@ ./testnet/guest/workload

demo: build ## three sites, one guest, one move: the whole of dcnode (DEMO=flags)
	$(BIN)/dcnode testnet demo $(DEMO)

test: build lint ## all tests, with real QEMU machines
	$(GO) test -timeout 20m ./...
	env $$($(BIN)/dcnode testnet guest) $(GO) test -timeout 20m ./vmm/qemu ./node/migrate ./testnet ./testnet/guest -vm

race: ## the tests that need no QEMU, with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./...

lint: ## formatting and vet; the architecture is tested by arch_test.go
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...

fuzz: ## fuzz each decoder for FUZZ (30s), two at a time
	@grep -rn --include='*_test.go' '^func Fuzz' . | sed 's,^\(.*\)/[^/]*:[0-9]*:func \(Fuzz[A-Za-z0-9]*\).*,\1 \2,' | \
	  xargs -P 2 -n 2 sh -c 'sh .ci/fuzz "$$0" "$$1" $(FUZZ)'

bench-engine: ## the engine beside babble and lachesis-base: speed and memory (BENCH=flags, BENCH_OUT=file, PEERS=folder with clones)
	@sh bench/engine.sh $(BENCH)
	@sh bench/engine.sh -memory $(BENCH)

bench-consensus: build ## the time to order, between real processes over an emulated link (BENCH=flags, BENCH_OUT=file)
	$(BIN)/dcnode testnet consensus --crash $(BENCH)
	$(BIN)/dcnode testnet consensus --members 7 --km 1000 --count 100 --isolated 0 --idle 60s $(BENCH)
	$(GO) test ./testnet -run 'Order|Wait|Crashed|Slow' -bubble -v -count 1 -timeout 30m | grep 'n = '

bench-plan: build ## what vm plan says beside what the move is, over emulated links (BENCH=flags, BENCH_OUT=file)
	$(BIN)/dcnode testnet plan $(BENCH)

bench-ledger: ## the ledger with 100,000 machines after a million transactions (BENCH_OUT=file)
	$(GO) test -count=1 -timeout 30m ./consensus/ledger/ledgertest -run TestScale -v -args -scale

law: ## the ledger in random worlds, beside a second model of its law: SEED=n alone in full, STEPS=n seeds (200) from SEED on
	$(GO) test -count=1 -timeout 0 ./consensus/ledger/ledgertest -run TestRandomWorldsKeepTheLaw -v -args \
	  $(if $(SEED),-seed $(SEED)) $(if $(STEPS),-steps $(STEPS))

model: ## check the model of the handover with Spin (MODEL=-full: for minutes)
	@sh docs/model/check.sh $(MODEL)

sim: ## networks with faults in virtual time: SEED=n alone in full, STEPS=n seeds (250) from SEED on
	$(GO) test -count=1 -timeout 0 ./consensus/consensustest -run TestSimulatedNetworksAgree -v -args \
	  $(if $(SEED),-seed $(SEED)) $(if $(STEPS),-steps $(STEPS))

qemu: ## make a QEMU that can migrate ready, privately, from Debian's backports
	@sh scripts/qemu.sh

guest: build ## make the demo's guest ready
	$(BIN)/dcnode testnet guest

compose: build ## three sites as containers, and a move between two of them
	sh testnet/compose/migrate.sh

clean: ## remove what was built; the cache of QEMU and guest stays
	rm -rf $(BIN)
