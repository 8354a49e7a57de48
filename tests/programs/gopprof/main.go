// Gopprof spends CPU through inlined functions, allocates, and fights over a mutex and a channel; it serves
// net/http/pprof on loopback and prints its address. It ends when its standard input is closed.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"sync"
	"time"
)

var sink uint64
var kept [][]byte

// Small enough for the compiler to inline, three levels deep.
func mix(x uint64) uint64 {
	x ^= x >> 29
	x *= 6364136223846793005
	return x ^ x>>32 + 1442695040888963407
}
func twice(x uint64) uint64 { return mix(mix(x)) }
func four(x uint64) uint64  { return twice(twice(x)) }

//go:noinline
func burn(units int) {
	x := sink
	for i := 0; i < units*50_000; i++ {
		x = four(x)
	}
	sink = x
}

//go:noinline
func hot() { burn(3) }

//go:noinline
func warm() { burn(1) }

//go:noinline
func recurse(depth int) {
	if depth == 0 {
		burn(1)
		return
	}
	recurse(depth - 1)
}

//go:noinline
func allocate(size int) {
	kept = append(kept, make([]byte, size))
	if len(kept) > 512 {
		kept = append([][]byte(nil), kept[256:]...)
	}
}

func contend(lock *sync.Mutex) {
	for {
		lock.Lock()
		time.Sleep(time.Millisecond)
		lock.Unlock()
		time.Sleep(100 * time.Microsecond)
	}
}

func main() {
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	runtime.MemProfileRate = 16 << 10
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().String())
	go http.Serve(listener, nil)
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0)
	}()
	var lock sync.Mutex
	for i := 0; i < 3; i++ {
		go contend(&lock)
	}
	messages := make(chan int)
	go func() {
		for i := 0; ; i++ {
			time.Sleep(2 * time.Millisecond)
			messages <- i
		}
	}()
	go func() {
		for range messages {
		}
	}()
	for i := 0; ; i++ {
		hot()
		warm()
		recurse(5)
		allocate(1 << (uint(i) % 16))
		time.Sleep(4 * time.Millisecond) // a third of a CPU: others want it, too
	}
}
