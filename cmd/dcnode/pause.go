package main

import (
	"fmt"
	"strconv"
	"time"
)

// pause is a flag that takes a length of time, or a number of milliseconds.
type pause int64

// String implements pflag.Value.
func (p *pause) String() string {
	if *p == 0 {
		return "0"
	}
	return (time.Duration(*p) * time.Millisecond).String()
}

// Type implements pflag.Value.
func (p *pause) Type() string { return "duration" }

// Set implements pflag.Value.
func (p *pause) Set(text string) error {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		*p = pause(n)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > 0 && d < time.Millisecond {
		return fmt.Errorf("%q is no pause: write 200ms or 1.5s", text)
	}
	*p = pause(d.Milliseconds())
	return nil
}
