// What does a program see that has memberlist or serf in it, and when?
//
// One member of a cluster on the loopback, in the lines that benchmarks/peers/__init__.py says: it tells that it is there, starts
// at a line of input, and then tells whom it was told of, and how many it knows, itself included. Settings are those of
// the named profile, and nothing else; what the libraries log is dropped.
//
//	rivals SYSTEM PROFILE NAME PORT [SEED ...]      SYSTEM: memberlist, serf; PROFILE: lan, local
//	rivals --version
//
// Not here: who starts it, and what is measured.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"golang.org/x/sys/unix"
)

// again is the pause before seeds of which none answered are asked once more: all start at once, and they may be later.
const again = 10 * time.Millisecond

// tell prints a line with the time of CLOCK_MONOTONIC, which all processes of a machine share.
func tell(kind, name string, members int) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	line, _ := json.Marshal([]any{float64(now.Nano()) / 1e9, kind, name, members})
	fmt.Printf("%s\n", line)
}

// heard is a memberlist.EventDelegate. It counts by itself: to ask the list from within its call is a deadlock.
type heard struct{ members int }

func (h *heard) NotifyJoin(node *memberlist.Node) {
	h.members++
	tell("joined", node.Name, h.members)
}

func (h *heard) NotifyLeave(node *memberlist.Node) {
	h.members--
	kind := "died"
	if node.State == memberlist.StateLeft {
		kind = "left"
	}
	tell(kind, node.Name, h.members)
}

func (h *heard) NotifyUpdate(*memberlist.Node) {}

// profile is what the library has under this name, at a port of the loopback.
func profile(name, member string, port int) *memberlist.Config {
	settings := memberlist.DefaultLANConfig()
	if name == "local" {
		settings = memberlist.DefaultLocalConfig()
	}
	settings.Name, settings.LogOutput = member, io.Discard
	settings.BindAddr, settings.BindPort, settings.AdvertisePort = "127.0.0.1", port, port
	return settings
}

// join asks until one of the seeds has answered; who has none is the first.
func join(seeds []string, ask func([]string) (int, error)) {
	for len(seeds) > 0 {
		if answered, _ := ask(seeds); answered > 0 {
			return
		}
		time.Sleep(again)
	}
}

func startMemberlist(settings *memberlist.Config, seeds []string) error {
	settings.Events = &heard{}
	list, err := memberlist.Create(settings)
	if err == nil {
		join(seeds, list.Join)
	}
	return err
}

func startSerf(settings *memberlist.Config, seeds []string) error {
	events := make(chan serf.Event, 512)
	config := serf.DefaultConfig()
	config.NodeName, config.MemberlistConfig = settings.Name, settings
	config.EventCh, config.LogOutput = events, io.Discard
	go watch(events)
	cluster, err := serf.Create(config)
	if err == nil {
		join(seeds, func(known []string) (int, error) { return cluster.Join(known, true) })
	}
	return err
}

func watch(events <-chan serf.Event) {
	members := 0
	for event := range events {
		told, isMember := event.(serf.MemberEvent)
		if !isMember {
			continue
		}
		for _, member := range told.Members {
			switch told.Type {
			case serf.EventMemberJoin:
				members++
				tell("joined", member.Name, members)
			case serf.EventMemberFailed:
				members--
				tell("died", member.Name, members)
			case serf.EventMemberLeave:
				members--
				tell("left", member.Name, members)
			}
		}
	}
}

func version() {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if name := strings.TrimPrefix(module.Path, "github.com/hashicorp/"); name == "memberlist" || name == "serf" {
				fmt.Println(name, module.Version)
			}
		}
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		version()
		return
	}
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "rivals SYSTEM PROFILE NAME PORT [SEED ...]")
		os.Exit(2)
	}
	var seeds []string
	for _, seed := range os.Args[5:] {
		seeds = append(seeds, "127.0.0.1:"+seed)
	}
	port, err := strconv.Atoi(os.Args[4])
	if err != nil {
		panic(err)
	}
	settings := profile(os.Args[2], os.Args[3], port)
	input := bufio.NewReader(os.Stdin)
	tell("imported", "", 0)
	if _, err := input.ReadString('\n'); err != nil {
		return
	}
	if os.Args[1] == "serf" {
		err = startSerf(settings, seeds)
	} else {
		err = startMemberlist(settings, seeds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, input) // until whoever started it ends
}
