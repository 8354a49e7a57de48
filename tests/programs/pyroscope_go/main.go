// A program that sends its profiles with Pyroscope's own client, as its users do.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/grafana/pyroscope-go"
)

var wasted []byte
var kept = make([][]byte, 0, 17)

//go:noinline
func spendHot(n int) (sum int) {
	for i := range n {
		sum += i * i % 7
	}
	return sum
}

// Spent returns this process's CPU time: on a busy machine the clock says little of it.
func spent() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

//go:noinline
func keepBytes() {
	kept = append(kept, make([]byte, 1<<20))
}

//go:noinline
func wasteBytes() {
	wasted = make([]byte, 1<<20)
}

// A heap profile shows what was allocated up to the last collection but one.
func flush(profiler *pyroscope.Profiler) {
	runtime.GC()
	runtime.GC()
	profiler.Flush(true)
}

//go:noinline
func contend(lock *sync.Mutex) {
	lock.Lock()
	time.Sleep(time.Millisecond)
	lock.Unlock()
}

func main() {
	runtime.MemProfileRate = 1
	runtime.MemProfileRate = 1
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	profiler, err := pyroscope.Start(pyroscope.Config{
		ApplicationName: os.Getenv("PYROSCOPE_APPLICATION_NAME"),
		ServerAddress:   os.Getenv("PYROSCOPE_SERVER_ADDRESS"),
		Tags:            map[string]string{"version": "v1.1", "namespace": "shop"},
		Logger:          pyroscope.StandardLogger,
		ProfileTypes: []pyroscope.ProfileType{
			pyroscope.ProfileCPU, pyroscope.ProfileAllocObjects, pyroscope.ProfileAllocSpace,
			pyroscope.ProfileInuseObjects, pyroscope.ProfileInuseSpace, pyroscope.ProfileGoroutines,
			pyroscope.ProfileMutexCount, pyroscope.ProfileMutexDuration,
			pyroscope.ProfileBlockCount, pyroscope.ProfileBlockDuration,
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var lock sync.Mutex
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for range 5 {
				contend(&lock)
			}
		})
	}
	for range 17 {
		keepBytes()
	}
	group.Wait()
	total := 0
	for begun := spent(); spent()-begun < 1500*time.Millisecond; {
		total += spendHot(100_000)
	}
	// The client's first heap profile is what the second one grows from.
	flush(profiler)
	for range 13 {
		wasteBytes()
	}
	flush(profiler)
	if err := profiler.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(total, len(kept))
}
