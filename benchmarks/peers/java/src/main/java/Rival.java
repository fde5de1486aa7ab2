// What does a program see that has Apache Pekko's cluster and Distributed Data in it, and when?
//
// One node on the loopback, in the lines that benchmarks/peers/__init__.py says: as a member it tells whom it takes for
// reachable; as one who hears it prints each write with the time at which it had it; as one who tells it makes the
// writes that a line of input asks for. Each key is an LWWMap of its own with one entry: deltas of a map are sent on
// before registers are, and one map of all keys was slower by far. A split brain resolver is set, as the documents ask:
// without one a member that crashed would keep others from joining for ever.
//
//     pekko member|hear|tell|tell-one default|told|fast NAME PORT [SEED ...]
//     pekko --version
//
// `told`: who has subscribed is told every 10 ms, not every 500. `fast`: that, and a write is sent to all at once
// (WriteAll), whole and not as a delta, which would have to wait for those before it.
//
// Not here: who starts it, and what is measured.

import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import org.apache.pekko.Version;
import org.apache.pekko.actor.AbstractActor;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.actor.Address;
import org.apache.pekko.actor.Props;
import org.apache.pekko.cluster.Cluster;
import org.apache.pekko.cluster.ClusterEvent;
import org.apache.pekko.cluster.Member;
import org.apache.pekko.cluster.ddata.DistributedData;
import org.apache.pekko.cluster.ddata.Key;
import org.apache.pekko.cluster.ddata.LWWMap;
import org.apache.pekko.cluster.ddata.LWWMapKey;
import org.apache.pekko.cluster.ddata.Replicator;
import org.apache.pekko.cluster.ddata.SelfUniqueAddress;
import org.apache.pekko.pattern.Patterns;

public final class Rival {
    static final int SPAN = 256; // keys that are written in turn: more than are on their way at a time
    static final int WARM = 1000; // writes before it is ready: else a short run measures how the JVM warms up
    static final Duration SETTLE = Duration.ofMillis(1500); // keys come in no order: what was before the end comes in it
    static final String ENTRY = "value";
    static final Key<LWWMap<String, String>> END = LWWMapKey.create("end");

    static Key<LWWMap<String, String>> key(long number) {
        return LWWMapKey.create("key-" + number);
    }

    /** One line at a time: several threads print. System.nanoTime is CLOCK_MONOTONIC, which all processes share. */
    static synchronized void print(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static void say(String kind, String name, int members) {
        print(String.format("[%.6f, \"%s\", \"%s\", %d]", System.nanoTime() / 1e9, kind, name, members));
    }

    static Config settings(String kind, String name, String port) {
        List<String> lines = new ArrayList<>(List.of(
                "pekko.actor.provider = cluster",
                "pekko.loglevel = OFF",
                "pekko.stdout-loglevel = OFF",
                "pekko.remote.artery.canonical { hostname = \"127.0.0.1\", port = " + port + " }",
                "pekko.cluster.roles = [\"" + name + "\"]",
                "pekko.cluster.downing-provider-class = org.apache.pekko.cluster.sbr.SplitBrainResolverProvider"));
        if (!kind.equals("default")) {
            lines.add("pekko.cluster.distributed-data.notify-subscribers-interval = 10 ms");
        }
        if (kind.equals("fast")) {
            lines.add("pekko.cluster.distributed-data.delta-crdt.enabled = off");
        }
        return ConfigFactory.parseString(String.join("\n", lines)).withFallback(ConfigFactory.load());
    }

    /** Whom it takes for alive: who is up and reachable. */
    static final class Watching extends AbstractActor {
        private final TreeSet<String> alive = new TreeSet<>();

        @Override
        public void preStart() {
            Cluster.get(getContext().getSystem()).subscribe(
                    getSelf(), ClusterEvent.initialStateAsEvents(), ClusterEvent.MemberEvent.class,
                    ClusterEvent.ReachabilityEvent.class);
        }

        @Override
        public Receive createReceive() {
            return receiveBuilder()
                    .match(ClusterEvent.MemberUp.class, event -> here(event.member()))
                    .match(ClusterEvent.ReachableMember.class, event -> here(event.member()))
                    .match(ClusterEvent.UnreachableMember.class, event -> gone(event.member()))
                    .match(ClusterEvent.MemberRemoved.class, event -> gone(event.member()))
                    .matchAny(other -> { })
                    .build();
        }

        private static String name(Member member) {
            return member.getRoles().stream().filter(role -> !role.startsWith("dc-")).findFirst().orElse("");
        }

        private void here(Member member) {
            if (alive.add(name(member))) {
                say("joined", name(member), alive.size());
            }
        }

        private void gone(Member member) {
            if (alive.remove(name(member))) {
                say("died", name(member), alive.size());
            }
        }
    }

    /** Prints what was written, and the end of a round when everything before it has come. */
    static final class Hearing extends AbstractActor {
        @Override
        public void preStart() {
            ActorRef replicator = replicator(getContext().getSystem());
            replicator.tell(new Replicator.Subscribe<>(END, getSelf()), getSelf());
            for (long number = 0; number < SPAN; number++) {
                replicator.tell(new Replicator.Subscribe<>(key(number), getSelf()), getSelf());
            }
        }

        @Override
        public Receive createReceive() {
            return receiveBuilder().match(Replicator.Changed.class, this::changed).matchAny(other -> { }).build();
        }

        private void changed(Replicator.Changed<?> told) {
            String line = ((LWWMap<?, ?>) told.dataValue()).getEntries().get(ENTRY) + " " + System.nanoTime();
            if (told.key().equals(END)) {
                getContext().getSystem().scheduler().scheduleOnce(
                        SETTLE, () -> print(line), getContext().getDispatcher());
            } else if (!line.startsWith("warm")) {
                print(line);
            }
        }
    }

    /** Opens a latch when there are two replicas. */
    static final class Counting extends AbstractActor {
        private final CountDownLatch both;

        Counting(CountDownLatch both) {
            this.both = both;
        }

        @Override
        public void preStart() {
            ask();
        }

        private void ask() {
            replicator(getContext().getSystem()).tell(Replicator.getReplicaCount(), getSelf());
        }

        @Override
        public Receive createReceive() {
            return receiveBuilder().match(Replicator.ReplicaCount.class, count -> {
                if (count.n() == 2) {
                    both.countDown();
                } else {
                    getContext().getSystem().scheduler().scheduleOnce(
                            Duration.ofMillis(20), this::ask, getContext().getDispatcher());
                }
            }).build();
        }
    }

    static ActorRef replicator(ActorSystem system) {
        return DistributedData.get(system).replicator();
    }

    /** A line is a number and how many writes to make from it on. The number -1 is the end of a round. */
    static void tell(ActorSystem system, BufferedReader input, boolean fast, boolean oneKey) throws Exception {
        CountDownLatch both = new CountDownLatch(1);
        system.actorOf(Props.create(Counting.class, () -> new Counting(both)));
        both.await();
        for (int number = 0; number < WARM; number++) {
            Patterns.ask(replicator(system), put(system, fast, key(number % SPAN), "warm"), Duration.ofSeconds(10))
                    .toCompletableFuture().get();
            Thread.sleep(2);
        }
        Thread.sleep(2 * SETTLE.toMillis());
        print("ready");
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            long[] words = Arrays.stream(line.trim().split(" ")).mapToLong(Long::parseLong).toArray();
            for (long number = words[0]; number < words[0] + words[1]; number++) {
                Key<LWWMap<String, String>> key = number < 0 ? END : key(oneKey ? 0 : number % SPAN);
                replicator(system).tell(put(system, fast, key, number + " " + System.nanoTime()), ActorRef.noSender());
            }
        }
    }

    static Replicator.Update<LWWMap<String, String>> put(
            ActorSystem system, boolean fast, Key<LWWMap<String, String>> key, String value) {
        SelfUniqueAddress self = DistributedData.get(system).selfUniqueAddress();
        Replicator.WriteConsistency consistency =
                fast ? new Replicator.WriteAll(Duration.ofSeconds(5)) : Replicator.writeLocal();
        return new Replicator.Update<>(key, LWWMap.create(), consistency, map -> map.put(self, ENTRY, value));
    }

    static void drain(BufferedReader input) throws IOException {
        while (input.readLine() != null) { }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 4) {
            System.out.println("pekko " + Version.current());
            return;
        }
        boolean fast = arguments[1].equals("fast");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        ActorSystem system = ActorSystem.create("bench", settings(arguments[1], arguments[2], arguments[3]));
        Cluster cluster = Cluster.get(system);
        if (arguments[0].equals("member")) {
            say("imported", "", 0);
            if (input.readLine() == null) {
                Runtime.getRuntime().halt(0);
            }
            system.actorOf(Props.create(Watching.class));
        }
        List<Address> seeds = new ArrayList<>();
        for (String port : Arrays.asList(arguments).subList(4, arguments.length)) {
            seeds.add(new Address("pekko", "bench", "127.0.0.1", Integer.parseInt(port)));
        }
        cluster.joinSeedNodes(seeds.isEmpty() ? List.of(cluster.selfAddress()) : seeds);
        switch (arguments[0]) {
            case "tell" -> tell(system, input, fast, false);
            case "tell-one" -> tell(system, input, fast, true);
            case "hear" -> {
                system.actorOf(Props.create(Hearing.class));
                print("ready");
                drain(input);
            }
            default -> drain(input);
        }
        Runtime.getRuntime().halt(0); // a crash, as far as the others know: nothing is handed over
    }
}
