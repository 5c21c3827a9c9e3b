package gossip

// IsRelaying says whether what o publishes goes to gossipsub as well.
func IsRelaying(o *Overlay) bool { return o.relaying.Load() }
