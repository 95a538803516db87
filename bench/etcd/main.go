// Load clients of etcd, driven over standard input (bench/src/driver.rs says how).
//
// One thread for Go code, as the other clients have, and a connection for every sixteen clients, as etcd's own
// benchmark tool spreads them. Writes and reads go to the leader.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

const (
	clientsOfConnection = 16
	// How long what was begun in the measured time may take.
	drainMax = 10 * time.Second
)

var value = strings.Repeat("v", 300)

type cell struct {
	Operation         string
	Clients           int
	Records           uint64
	Keys              uint64
	Rate              uint64
	WarmMs, MeasureMs uint64
}

// What one client saw; merged when all are done.
type tally struct {
	reads, writes []int64
	failed        uint64
}

type answer struct {
	Operations uint64      `json:"operations"`
	Failed     uint64      `json:"failed"`
	Reads      [][2]uint64 `json:"reads"`
	Writes     [][2]uint64 `json:"writes"`
}

func scramble(z uint64) uint64 {
	z += 0x9E3779B97F4A7C15
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB
	return z ^ (z >> 31)
}

func key(number uint64) string {
	return fmt.Sprintf("sess:%016x%016x", scramble(2*number), scramble(2*number+1))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func connect(endpoint string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	must(err)
	return client
}

func leader(endpoints []string) string {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, endpoint := range endpoints {
			client := connect(endpoint)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := client.Status(ctx, endpoint)
			cancel()
			client.Close()
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				return endpoint
			}
		}
	}
	must(fmt.Errorf("no leader among %v", endpoints))
	return ""
}

func write(client *clientv3.Client, first, records, keys uint64) bool {
	ctx := context.Background()
	if records == 1 {
		_, err := client.Put(ctx, key(first), value)
		return err == nil
	}
	operations := make([]clientv3.Op, records)
	for i := range operations {
		operations[i] = clientv3.OpPut(key((first+uint64(i))%keys), value)
	}
	done, err := client.Txn(ctx).Then(operations...).Commit()
	return err == nil && done.Succeeded
}

// Serializable: answered by the member that was asked, as the other systems read.
func read(client *clientv3.Client, number uint64) bool {
	got, err := client.Get(context.Background(), key(number), clientv3.WithSerializable())
	return err == nil && len(got.Kvs) == 1 && len(got.Kvs[0].Value) == len(value)
}

func fill(clients []*clientv3.Client, keys uint64) {
	var next atomic.Uint64
	var all sync.WaitGroup
	for worker := range 64 {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := next.Add(1) - 1; number < keys; number = next.Add(1) - 1 {
				if !write(clients[worker%len(clients)], number, 1, keys) {
					must(fmt.Errorf("a write was refused"))
				}
			}
		}()
	}
	all.Wait()
}

// A timer of milliseconds and when it began.
func startTimer() (*os.File, time.Time) {
	descriptor, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	must(err)
	millisecond := unix.NsecToTimespec(int64(time.Millisecond))
	began := time.Now()
	must(unix.TimerfdSettime(descriptor, 0, &unix.ItimerSpec{Interval: millisecond, Value: millisecond}, nil))
	// Read through the runtime's poller: Go's own timers are late by up to a millisecond.
	return os.NewFile(uintptr(descriptor), "timer"), began
}

// Sends when requests are due, `rate` a second in groups of a millisecond, until the time is over.
func tick(timer *os.File, began, until time.Time, rate uint64, due chan<- time.Time) {
	defer timer.Close()
	defer close(due)
	var expired [8]byte
	ticks := uint64(0)
	for at := began; at.Before(until); {
		_, err := timer.Read(expired[:])
		must(err)
		for count := binary.NativeEndian.Uint64(expired[:]); count > 0; count-- {
			ticks++
			at = began.Add(time.Duration(ticks) * time.Millisecond)
			for range rate*ticks/1000 - rate*(ticks-1)/1000 {
				due <- at
			}
		}
	}
}

func run(clients []*clientv3.Client, cell cell) answer {
	var stop, measuring atomic.Bool
	var operations atomic.Uint64
	var due chan time.Time
	warm, measured := time.Duration(cell.WarmMs)*time.Millisecond, time.Duration(cell.MeasureMs)*time.Millisecond
	began := time.Now()
	if cell.Rate > 0 {
		// Room for all that can ever be due: a slow server must not hold up the clock.
		due = make(chan time.Time, cell.Rate*(cell.WarmMs+cell.MeasureMs+1000)/1000+1000)
		timer, start := startTimer()
		began = start
		go tick(timer, began, began.Add(warm+measured), cell.Rate, due)
	}
	from, until := began.Add(warm), began.Add(warm+measured)
	tallies := make([]tally, cell.Clients)
	var all sync.WaitGroup
	for worker := range cell.Clients {
		all.Add(1)
		go func() {
			defer all.Done()
			client, tally := clients[worker%len(clients)], &tallies[worker]
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for {
				at := time.Now()
				if due != nil {
					ticket, open := <-due
					if !open || time.Since(until) > drainMax {
						return
					}
					at = ticket
				} else if stop.Load() {
					return
				}
				isWrite := cell.Operation == "write" || cell.Operation == "mix" && random.IntN(10) == 0
				number, done := random.Uint64N(cell.Keys), false
				if isWrite {
					done = write(client, number, cell.Records, cell.Keys)
				} else {
					done = read(client, number)
				}
				if measuring.Load() && done {
					operations.Add(cell.Records)
				}
				isCounted := measuring.Load()
				if due != nil {
					isCounted = !at.Before(from) && at.Before(until)
				}
				if !isCounted {
					continue
				}
				if !done {
					tally.failed++
				}
				if isWrite {
					tally.writes = append(tally.writes, int64(time.Since(at)))
				} else {
					tally.reads = append(tally.reads, int64(time.Since(at)))
				}
			}
		}()
	}
	time.Sleep(time.Until(from))
	fmt.Println("start")
	measuring.Store(true)
	time.Sleep(time.Until(until))
	measuring.Store(false)
	fmt.Println("stop")
	stop.Store(true)
	all.Wait()
	result := answer{Operations: operations.Load(), Reads: [][2]uint64{}, Writes: [][2]uint64{}}
	reads, writes := map[uint64]uint64{}, map[uint64]uint64{}
	for _, tally := range tallies {
		result.Failed += tally.failed
		count(reads, tally.reads)
		count(writes, tally.writes)
	}
	for latency, times := range reads {
		result.Reads = append(result.Reads, [2]uint64{latency, times})
	}
	for latency, times := range writes {
		result.Writes = append(result.Writes, [2]uint64{latency, times})
	}
	return result
}

// Counts latencies to the nearest 100 ns.
func count(counts map[uint64]uint64, latencies []int64) {
	for _, latency := range latencies {
		counts[uint64(latency/100*100)]++
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	target := leader(os.Args[1:])
	clients := []*clientv3.Client{}
	connections := func(wanted int) []*clientv3.Client {
		for len(clients) < wanted {
			clients = append(clients, connect(target))
		}
		return clients[:wanted]
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var keys uint64
		var cell cell
		if _, err := fmt.Sscanf(lines.Text(), "fill %d", &keys); err == nil {
			fill(connections(4), keys)
			fmt.Println("filled")
			continue
		}
		_, err := fmt.Sscanf(lines.Text(), "cell %s %d %d %d %d %d %d", &cell.Operation, &cell.Clients, &cell.Records,
			&cell.Keys, &cell.Rate, &cell.WarmMs, &cell.MeasureMs)
		must(err)
		result := run(connections((cell.Clients+clientsOfConnection-1)/clientsOfConnection), cell)
		must(json.NewEncoder(os.Stdout).Encode(result))
	}
}
