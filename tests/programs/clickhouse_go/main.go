// Drives a server through clickhouse-go over HTTP as Grafana's ClickHouse data source does, and exits 0 when every
// value came back as it should. Usage: clickhouse_go HOST:PORT DATABASE
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func equal(what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		fmt.Fprintf(os.Stderr, "%s: got %#v, want %#v\n", what, got, want)
		os.Exit(1)
	}
}

func run(address, database string, method clickhouse.CompressionMethod, name string) {
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:        []string{address},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: database, Username: "default"},
		Compression: &clickhouse.Compression{Method: method},
		Settings:    clickhouse.Settings{"max_execution_time": 30},
		DialTimeout: 10 * time.Second,
	})
	check(name+" open", err)
	defer conn.Close()
	ctx := context.Background()
	check(name+" ping", conn.Ping(ctx))
	version, err := conn.ServerVersion()
	check(name+" version", err)
	if version.Version.Major < 20 {
		check(name+" version", fmt.Errorf("server says %v", version))
	}

	table := "go_" + name
	check(name+" create", conn.Exec(ctx, "CREATE TABLE "+table+
		" (id UInt64, s String, l LowCardinality(String), n Nullable(Int32), a Array(String), m Map(String, UInt64),"+
		" t Tuple(x Int8, y String), e Enum8('a' = 1, 'b' = 2), d DateTime('UTC'), f Float64)"+
		" ENGINE = MergeTree ORDER BY id"))
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+table)
	check(name+" batch", err)
	const rows = 70001
	at := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for i := 0; i < rows; i++ {
		var null *int32
		if i%3 == 0 {
			v := int32(-i)
			null = &v
		}
		check(name+" append", batch.Append(uint64(i), fmt.Sprintf("text %d", i), fmt.Sprintf("low %d", i%7), null,
			[]string{"p", fmt.Sprint(i % 5)}, map[string]uint64{"k": uint64(i)}, []any{int8(i % 100), "y"},
			[]string{"a", "b"}[i%2], at, float64(i)/2))
	}
	check(name+" send", batch.Send())

	list, err := conn.Query(ctx, "SELECT id, s, l, n, a, m, t, e, d, f FROM "+table+" ORDER BY id")
	check(name+" select", err)
	count := 0
	for list.Next() {
		var (
			id   uint64
			s, l string
			n    *int32
			a    []string
			m    map[string]uint64
			t    map[string]any
			e    string
			d    time.Time
			f    float64
		)
		check(name+" scan", list.Scan(&id, &s, &l, &n, &a, &m, &t, &e, &d, &f))
		i := count
		equal(name+" id", id, uint64(i))
		equal(name+" s", s, fmt.Sprintf("text %d", i))
		equal(name+" l", l, fmt.Sprintf("low %d", i%7))
		equal(name+" n", n == nil, i%3 != 0)
		equal(name+" a", a, []string{"p", fmt.Sprint(i % 5)})
		equal(name+" m", m, map[string]uint64{"k": uint64(i)})
		equal(name+" t", t["x"], int8(i%100))
		equal(name+" e", e, []string{"a", "b"}[i%2])
		equal(name+" d", d.Equal(at), true)
		equal(name+" f", f, float64(i)/2)
		count++
	}
	check(name+" rows", list.Err())
	equal(name+" count", count, rows)

	var sum uint64
	// Servers read parameters as escaped text.
	var text string
	check(name+" parameters", conn.QueryRow(clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{
		"low": "10", "high": "13", "text": `it's \\ a\ttext`,
	})), "SELECT sum(id), {text:String} FROM "+table+" WHERE id BETWEEN {low:UInt64} AND {high:UInt64}").Scan(&sum, &text))
	equal(name+" parameters", sum, uint64(46))
	equal(name+" parameters", text, "it's \\ a\ttext")
	check(name+" bind", conn.QueryRow(ctx, "SELECT s FROM "+table+" WHERE id = ?", 17).Scan(&text))
	equal(name+" bind", text, "text 17")

	empty, err := conn.Query(ctx, "SELECT id FROM "+table+" WHERE 0")
	check(name+" empty", err)
	equal(name+" empty", empty.Next(), false)
	check(name+" empty rows", empty.Err())

	err = conn.Exec(ctx, "SELECT * FROM there_is_none")
	var failure *clickhouse.Exception
	if !errors.As(err, &failure) || failure.Code != 60 {
		check(name+" error", fmt.Errorf("wanted exception 60, got %v", err))
	}
	check(name+" drop", conn.Exec(ctx, "DROP TABLE "+table))
	fmt.Println(name, "ok")
}

func main() {
	for name, method := range map[string]clickhouse.CompressionMethod{
		"none": clickhouse.CompressionNone, "lz4": clickhouse.CompressionLZ4, "zstd": clickhouse.CompressionZSTD,
		"gzip": clickhouse.CompressionGZIP, "deflate": clickhouse.CompressionDeflate,
	} {
		run(os.Args[1], os.Args[2], method, name)
	}
}
