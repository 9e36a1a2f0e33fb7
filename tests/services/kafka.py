"""Apache Kafka in KRaft mode: each broker is a controller too. `kafka.1` .. `kafka.3`.

The jars come from Maven, the container from the project's own image. Small and quick to start;
`$MILLSTREAM_KAFKA_JVM` adds flags for a benchmark. Clients come to `$MILLSTREAM_KAFKA_ADVERTISED`
where that is given: a proxy in front of the one broker.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import time

import containers
import kafka_probe
import runners
from install import need, need_version
from service import Service
from support import HOST, Failure, tail

VERSION = "4.1.0"
# A test's broker has to start fast and stay small; peak speed is not its job.
SMALL_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
BROKER_HEAP, FORMAT_HEAP, TOOL_HEAP = "-Xmx384m", "-Xmx128m", "-Xmx256m"
COORDINATOR_SECONDS_MAX = 30

# The jars name only a logging API: without log4j-slf4j-impl the broker would be mute.
POM = f"""<project><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
<version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
<version>2.24.3</version></dependency></dependencies></project>"""

LOG4J = """\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c{1})%n%throwable{20}
rootLogger.level = ${sys:level:-INFO}
rootLogger.appenderRef.out.ref = out
"""

TOOL_CLASSES = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "configs": "kafka.admin.ConfigCommand",
    "offsets": "org.apache.kafka.tools.GetOffsetShell",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "dump-log": "kafka.tools.DumpLogSegments",
}


class Kafka(Service):
    """The brokers of one cluster."""

    name, variable = "kafka", "KAFKA_BROKERS"
    default_ports = (9092, 9093, 9094, 9192, 9193, 9194)
    IMAGE = f"apache/kafka:{VERSION}"

    def install(self, cache):
        need_version("java", "default-jre-headless", (17, 0), "-version")

        def build(folder, run):
            (folder / "pom.xml").write_text(POM)
            (folder / "log4j2.properties").write_text(LOG4J)
            repository = folder / "repository"
            run(need("mvn", "maven"), "-q", "-B", "-Dstyle.color=never",
                f"-Dmaven.repo.local={repository}", "dependency:copy-dependencies",
                "-DoutputDirectory=libs", "-DincludeScope=runtime")
            shutil.rmtree(repository)
        return cache.get(f"kafka-{VERSION}", build)

    def instances(self, box):
        return [f"kafka.{node}" for node in self.nodes(box)]

    @staticmethod
    def nodes(box):
        """The node ids of the cluster."""
        return range(1, box.settings["brokers"] + 1)

    def ports(self, box, instance):
        node = node_of(instance)
        return [box.port(9091 + node), box.port(9191 + node)]

    def java(self, box, heap, level, *arguments):
        """A command line of one of Kafka's programs."""
        home = box.cache.root / f"kafka-{VERSION}"
        return ["java", heap, *SMALL_JVM, f"-Dlog4j2.configurationFile={home}/log4j2.properties",
                f"-Dlevel={level}", "-cp", f"{home}/libs/*", *arguments]

    def prepare(self, box, instance):
        folder, node = box.folder(instance), node_of(instance)
        port, controller = self.ports(box, instance)
        voters = [f"{n}@{HOST}:{box.port(9191 + n)}" for n in self.nodes(box)]
        properties = cluster_properties(node, voters) | {
            "listeners": f"CLIENT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"CLIENT://{advertised(port)}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "log.dirs": folder / "data",
        }
        lines = [f"{key}={value}\n" for key, value in properties.items()]
        (folder / "server.properties").write_text("".join(lines))
        if not (folder / "data/meta.properties").exists():
            self.format(box, instance, folder / "server.properties")

    def format(self, box, instance, properties):
        """Give an empty data folder the name of the cluster, which all its brokers share."""
        command = self.java(box, FORMAT_HEAP, "WARN", "kafka.tools.StorageTool", "format",
                            "-t", cluster_id(box), "-c", properties)
        with open(box.log(instance), "a") as log:
            done = subprocess.run(command, stdout=log, stderr=log)
        if done.returncode:
            raise Failure(f"{instance}: formatting the data folder failed:\n"
                          f"{tail(box.log(instance))}")

    def command(self, box, instance):
        return self.java(box, BROKER_HEAP, "INFO", *extra_flags(), "kafka.Kafka",
                         box.folder(instance) / "server.properties")

    def container(self, box, instance):
        node, port = node_of(instance), self.ports(box, instance)[0]
        host = containers.container_name(box, instance)
        voters = [f"{n}@{containers.container_name(box, f'kafka.{n}')}:29093"
                  for n in self.nodes(box)]
        # Clients come through the published port, brokers over the box's network.
        properties = cluster_properties(node, voters) | {
            "listeners": f"CLIENT://:{port},BROKER://:29092,CONTROLLER://:29093",
            "advertised.listeners": f"CLIENT://{HOST}:{port},BROKER://{host}:29092",
            "listener.security.protocol.map":
                "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "log.dirs": "/var/lib/kafka/data",
        }
        env = {"KAFKA_" + key.upper().replace(".", "_"): value
               for key, value in properties.items()}
        env |= {"CLUSTER_ID": cluster_id(box), "KAFKA_HEAP_OPTS": BROKER_HEAP,
                "KAFKA_JVM_PERFORMANCE_OPTS": shlex.join([*SMALL_JVM, *extra_flags()])}
        return containers.Container(self.IMAGE, {port: port}, env)

    def is_ready(self, box, instance):
        """This broker answers, and names as many live brokers as run."""
        brokers = kafka_probe.live_brokers(self.ports(box, instance)[0])
        return node_of(instance) in brokers and len(brokers) >= len(self.running(box))

    def running(self, box):
        """The instances that run now."""
        return [instance for instance in self.instances(box) if runners.is_alive(box, instance)]

    def settle(self, box):
        """Without this a first consumer waits seconds for the internal topics."""
        deadline = time.monotonic() + COORDINATOR_SECONDS_MAX
        ports = [self.ports(box, instance)[0] for instance in self.running(box)]
        for kind in (kafka_probe.GROUP, kafka_probe.TRANSACTION):
            while not all(kafka_probe.has_coordinator(port, kind) for port in ports):
                if time.monotonic() > deadline:
                    raise Failure("kafka: no group or transaction coordinator after "
                                  f"{COORDINATOR_SECONDS_MAX} s; see `services logs kafka`")
                time.sleep(0.1)

    def exports(self, box):
        return {self.variable: ",".join(f"{HOST}:{box.port(9091 + n)}" for n in self.nodes(box))}

    def endpoints(self, address):
        pairs = [broker.strip().rpartition(":") for broker in address.split(",")]
        return [(host or port, int(port) if host else 9092) for host, _, port in pairs]

    def tool(self, box, tool, arguments, in_container):
        """The command line of one of Kafka's own tools, pointed at this cluster."""
        if tool not in TOOL_CLASSES and "." not in tool:
            raise Failure(f"no tool `{tool}`; there are: {' '.join(TOOL_CLASSES)}, or a class name")
        java_class = TOOL_CLASSES.get(tool, tool)
        address = self.given_address(box) or self.exports(box)[self.variable]
        first = containers.container_name(box, "kafka.1")
        if in_container:
            address = f"{first}:29092"
        if tool != "dump-log" and not {"--bootstrap-server", "--help"} & set(arguments):
            arguments = ["--bootstrap-server", address, *arguments]
        if in_container:
            return ["docker", "exec", first, "/opt/kafka/bin/kafka-run-class.sh", java_class,
                    *arguments]
        self.install(box.cache)
        return self.java(box, TOOL_HEAP, "ERROR", java_class, *arguments)


def node_of(instance):
    """The node id in an instance's name."""
    return int(instance.partition(".")[2])


def cluster_id(box):
    """Any 16 bytes name a cluster; all brokers of one box need the same."""
    return hashlib.sha256(str(box.root).encode()).hexdigest()[:22]


def extra_flags():
    """The flags that the user adds to a broker."""
    return shlex.split(os.environ.get("MILLSTREAM_KAFKA_JVM", ""))


def advertised(port):
    """Where the broker at `port` tells its clients to come."""
    return os.environ.get("MILLSTREAM_KAFKA_ADVERTISED") or f"{HOST}:{port}"


def cluster_properties(node, voters):
    """The configuration of a broker, less its addresses and folders."""
    brokers = len(voters)
    replicas_in_sync = min(2, brokers)
    return {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(voters),
        "controller.listener.names": "CONTROLLER",
        # A wrong topic name has to be an error, not a new topic.
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        "default.replication.factor": brokers,
        "min.insync.replicas": replicas_in_sync,
        "offsets.topic.replication.factor": brokers,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": brokers,
        "transaction.state.log.min.isr": replicas_in_sync,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": brokers,
        "share.coordinator.state.topic.min.isr": replicas_in_sync,
        # Tests fail over in seconds: notice a dead broker after 3 s, allow short group sessions.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "controller.quorum.election.timeout.ms": 500,
        "controller.quorum.fetch.timeout.ms": 1000,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 8388608,
    }
