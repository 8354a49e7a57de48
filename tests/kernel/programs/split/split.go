// As split.c.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
)

var sink uint64

//go:noinline
func sevenParts() {
	x := sink
	for i := 0; i < 7*2000000; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

//go:noinline
func threeParts() {
	x := sink
	for i := 0; i < 3*2000000; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

func main() {
	rounds, _ := strconv.Atoi(os.Args[1])
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	in.ReadString('\n')
	for i := 0; i < rounds; i++ {
		sevenParts()
		threeParts()
	}
	fmt.Println("{}")
	in.ReadString('\x00')
}
