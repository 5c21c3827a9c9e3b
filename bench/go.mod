// The engine beside two others, on the same graphs. A module of its own: nothing
// that it needs is ever linked into dcnode.
module github.com/dcnode/dcnode/bench

go 1.26.6

require (
	github.com/Fantom-foundation/lachesis-base v0.0.0-20230222093424-81884efc3c41
	github.com/dcnode/dcnode v0.0.0
	github.com/mosaicnetworks/babble v0.8.6-0.20240227091545-ecab6509df82
	github.com/sirupsen/logrus v1.9.3
	golang.org/x/sys v0.48.0
)

require (
	github.com/AndreasBriese/bbloom v0.0.0-20190306092124-e2d15f34fcf9 // indirect
	github.com/btcsuite/btcd v0.0.0-20190523000118-16327141da8c // indirect
	github.com/dgraph-io/badger v1.6.0 // indirect
	github.com/dgryski/go-farm v0.0.0-20190423205320-6a90982ecee2 // indirect
	github.com/dustin/go-humanize v1.0.0 // indirect
	github.com/emirpasic/gods v1.12.0 // indirect
	github.com/ethereum/go-ethereum v1.9.22 // indirect
	github.com/golang/protobuf v1.5.2 // indirect
	github.com/jonknight73/badger v0.0.0-20200218142835-fa9c019859f6 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/status-im/keycard-go v0.0.0-20190424133014-d95853db0f48 // indirect
	github.com/ugorji/go/codec v1.1.7 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/net v0.59.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/dcnode/dcnode => ../

// peers.sh checks these commits out.
replace github.com/mosaicnetworks/babble => ./peers/babble

replace github.com/Fantom-foundation/lachesis-base => ./peers/lachesis-base
