import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.time.Duration;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * jobs/page_views.sql as a topology: into a topic, then the same again with its counts thrown away.
 *
 * <p>Started by `run`; prints what peer.py says. The second pass counts: from the first record taken to the last one counted. Two threads, exactly
 * once, a commit every second, state in RocksDB, five minutes of grace, each change of a count goes out. Clicks that are no views go first.
 * That all is done shows only in ten quiet seconds behind it, whose CPU time, next to nothing, is in the bench's figure. Threads read their
 * partitions unevenly while they catch up, so that rows may come late by Kafka Streams' own count: those are missing in its answer.
 * Owns the topics that Kafka Streams makes for itself, and deletes them. Failure: an exception, or counts that stand still before the end.
 */
public class PageViews {
    private static final int PARTITIONS = 4;
    private static final Duration MINUTE = Duration.ofMinutes(1);
    private static final Duration GRACE = Duration.ofMinutes(5);
    private static final Duration RETENTION = Duration.ofMinutes(10);
    /** Much longer than from one commit to the next, which is how rows get from one part of the topology to the next. */
    private static final long QUIET_MS = 10_000;
    private static final long STALLED_MS = 60_000;
    private static final byte[] NOTHING = new byte[0];
    private static final String SEEN = "seen";

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static class Click {
        public String eventid;
        public String userid;
        public String url;
        public String timestamp;
        public String action;

        boolean isView() {
            return "view".equals(action) && url != null && eventid != null;
        }
    }

    private final String query;
    private final String brokers;
    private final String topic;
    private final String scratch;
    private final LongAdder taken = new LongAdder();
    private final LongAdder counted = new LongAdder();
    private final AtomicLong firstMs = new AtomicLong();

    private PageViews(String[] arguments) {
        query = arguments[0];
        brokers = arguments[1];
        topic = arguments[2];
        scratch = arguments[4];
    }

    public static void main(String[] arguments) throws Exception {
        // Positions are kept by the name of the application, so one that was there before would have nothing left to read.
        String name = arguments[3] + "-" + ProcessHandle.current().pid();
        new PageViews(arguments).pass(name + "-first", arguments[3]);
        System.out.println("began");
        double seconds = new PageViews(arguments).pass(name + "-second", null);
        System.out.println("ended " + seconds);
    }

    /** Over all that is in the topic; how many seconds it took. */
    private double pass(String name, String answers) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        counts(builder, answers);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(name));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            long records = records(admin);
            long lastMs;
            try {
                streams.start();
                lastMs = waitForAll(records);
                System.err.println(name + ": " + dropped(streams) + " records dropped as late, by its own count");
            } finally {
                // Its threads would outlive an exception.
                streams.close(Duration.ofSeconds(30));
            }
            List<String> own = new ArrayList<>(admin.listTopics().names().get());
            own.removeIf(other -> !other.startsWith(name + "-"));
            admin.deleteTopics(own).all().get();
            return (lastMs - firstMs.get()) / 1000.0;
        }
    }

    private Properties settings(String name) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, scratch);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        return settings;
    }

    /** The topology. */
    private void counts(StreamsBuilder builder, String answers) {
        TimestampExtractor eventTime = (record, previous) -> {
            Click click = (Click) record.value();
            return click == null ? previous : LocalDateTime.parse(click.timestamp).toInstant(ZoneOffset.UTC).toEpochMilli();
        };
        KStream<byte[], Click> views = builder
                .stream(topic, Consumed.with(Serdes.ByteArray(), clicks()).withTimestampExtractor(eventTime))
                .peek((key, click) -> take())
                .filter((key, click) -> click != null && click.isView());
        KStream<String, byte[]> urls = query.equals("dedup")
                ? unique(builder, views)
                : views.map((key, click) -> KeyValue.pair(click.url, NOTHING));
        Materialized<String, Long, WindowStore<Bytes, byte[]>> state = Materialized.as("counts");
        KStream<String, String> changes = urls
                .repartition(Repartitioned.with(Serdes.String(), Serdes.ByteArray()).withNumberOfPartitions(PARTITIONS).withName("by-url"))
                .peek((url, nothing) -> counted.increment())
                .groupByKey(Grouped.with(Serdes.String(), Serdes.ByteArray()))
                .windowedBy(TimeWindows.ofSizeAndGrace(MINUTE, GRACE))
                .count(state.withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()).withRetention(RETENTION))
                .toStream()
                .map((group, count) -> KeyValue.pair(group.key(), answer(group.window().startTime().toString(), group.key(), count)));
        if (answers == null) {
            changes.foreach((url, change) -> {});
        } else {
            changes.to(answers, Produced.with(Serdes.String(), Serdes.String()));
        }
    }

    /** The urls of views whose eventid was not seen within the retention before. */
    private KStream<String, byte[]> unique(StreamsBuilder builder, KStream<byte[], Click> views) {
        builder.addStateStore(Stores.windowStoreBuilder(
                Stores.persistentWindowStore(SEEN, RETENTION, MINUTE, false), Serdes.String(), Serdes.ByteArray()));
        return views
                .map((key, click) -> KeyValue.pair(click.eventid, click.url))
                .repartition(Repartitioned.with(Serdes.String(), Serdes.String()).withNumberOfPartitions(PARTITIONS).withName("by-eventid"))
                .processValues(FirstOfItsKey::new, SEEN)
                .map((eventid, url) -> KeyValue.pair(url, NOTHING));
    }

    /** Lets the first record of a key pass. */
    private static class FirstOfItsKey implements FixedKeyProcessor<String, String, String> {
        private FixedKeyProcessorContext<String, String> context;
        private WindowStore<String, byte[]> seen;

        @Override
        public void init(FixedKeyProcessorContext<String, String> context) {
            this.context = context;
            this.seen = context.getStateStore(SEEN);
        }

        @Override
        public void process(FixedKeyRecord<String, String> record) {
            long time = record.timestamp();
            try (var found = seen.fetch(record.key(), time - MINUTE.toMillis(), time + MINUTE.toMillis())) {
                if (found.hasNext()) {
                    return;
                }
            }
            seen.put(record.key(), NOTHING, time);
            context.forward(record);
        }
    }

    private static Serde<Click> clicks() {
        ObjectReader reader = new ObjectMapper().readerFor(Click.class);
        return Serdes.serdeFrom((topic, click) -> {
            throw new UnsupportedOperationException("clicks are only read");
        }, (topic, bytes) -> {
            try {
                return reader.readValue(bytes);
            } catch (IOException malformed) {
                return null;
            }
        });
    }

    private static String answer(String start, String url, long count) {
        return "{\"window_start\":\"" + start + "\",\"url\":\"" + url + "\",\"views\":" + count + "}";
    }

    private void take() {
        if (firstMs.get() == 0) {
            firstMs.compareAndSet(0, System.currentTimeMillis());
        }
        taken.increment();
    }

    private static long dropped(KafkaStreams streams) {
        return streams.metrics().entrySet().stream()
                .filter(metric -> metric.getKey().name().equals("dropped-records-total"))
                .mapToLong(metric -> ((Number) metric.getValue().metricValue()).longValue())
                .sum();
    }

    /** How many records the topic holds. */
    private long records(Admin admin) throws Exception {
        Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
        var description = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        description.partitions().forEach(partition -> ends.put(new TopicPartition(topic, partition.partition()), OffsetSpec.latest()));
        return admin.listOffsets(ends).all().get().values().stream().mapToLong(end -> end.offset()).sum();
    }

    /** Returns when everything was taken and nothing more is counted: when that was last done. */
    private long waitForAll(long records) throws InterruptedException {
        long lastMs = System.currentTimeMillis();
        long before = -1;
        while (true) {
            Thread.sleep(20);
            long now = System.currentTimeMillis();
            long done = taken.sum() + counted.sum();
            if (done != before) {
                before = done;
                lastMs = now;
            } else if (taken.sum() >= records && now - lastMs > QUIET_MS) {
                return lastMs;
            } else if (now - lastMs > STALLED_MS) {
                throw new IllegalStateException("stands still after " + taken.sum() + " of " + records + " records");
            }
        }
    }
}
