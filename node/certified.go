package node

import (
	"fmt"
	"os"

	"github.com/dcnode/dcnode/node/certificate"
)

// VerifyCertificate checks the certificate in a file against the genesis in another. It
// needs no node and no network.
func VerifyCertificate(path, genesis string) (*certificate.Finding, error) {
	g, err := ReadGenesis(genesis)
	if err != nil {
		return nil, fmt.Errorf("read genesis: %w", err)
	}
	founders, err := g.ledgerMembers()
	if err != nil {
		return nil, fmt.Errorf("read genesis: %w", err)
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() > certificate.MaxSize {
		err = fmt.Errorf("%s has %d bytes, a certificate has at most %d", path, info.Size(), certificate.MaxSize)
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	c, err := certificate.Decode(b)
	if err != nil {
		return nil, err
	}
	f, err := certificate.Verify(founders, g.network(), c)
	if err != nil {
		return nil, fmt.Errorf("the certificate does not hold: %w", err)
	}
	return f, nil
}
