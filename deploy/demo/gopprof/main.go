// Gopprof is the Go part of the known workload: it spends CPU in two functions as 3 : 1, allocates in one,
// and serves net/http/pprof on loopback for the scraper.
package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"strconv"
	"time"
)

var sink uint64
var kept [][]byte

func spin(units uint64) {
	x := sink + 1
	for i := uint64(0); i < units*300_000; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

//go:noinline
func goHot() { spin(3) }

//go:noinline
func goWarm() { spin(1) }

//go:noinline
func goAllocate() {
	kept = append(kept, make([]byte, 64<<10))
	if len(kept) > 256 {
		kept = kept[:0]
	}
}

func main() {
	seconds := 60.0
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	runtime.MemProfileRate = 64 << 10
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().String())
	go http.Serve(listener, nil)
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(end) {
		goHot()
		goWarm()
		goAllocate()
		time.Sleep(4 * time.Millisecond)
	}
}
