#!/bin/bash
# Kafka's command-line tools under the names that they have in the public image: each is a link to this file.
case "$(basename "$0" .sh)" in
  kafka-run-class) class=$1; shift ;;
  kafka-server-start) class=kafka.Kafka ;;
  kafka-storage) class=kafka.tools.StorageTool ;;
  kafka-configs) class=kafka.admin.ConfigCommand ;;
  kafka-dump-log) class=kafka.tools.DumpLogSegments ;;
  kafka-topics) class=org.apache.kafka.tools.TopicCommand ;;
  kafka-console-producer) class=org.apache.kafka.tools.ConsoleProducer ;;
  kafka-console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
  kafka-consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
  kafka-broker-api-versions) class=org.apache.kafka.tools.BrokerApiVersionsCommand ;;
  kafka-get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
  kafka-transactions) class=org.apache.kafka.tools.TransactionsCommand ;;
  kafka-delete-records) class=org.apache.kafka.tools.DeleteRecordsCommand ;;
  kafka-metadata-quorum) class=org.apache.kafka.tools.MetadataQuorumCommand ;;
  kafka-producer-perf-test) class=org.apache.kafka.tools.ProducerPerformance ;;
  kafka-consumer-perf-test) class=org.apache.kafka.tools.ConsumerPerformance ;;
esac
log=tools-log4j2; heap='-Xmx256M -XX:TieredStopAtLevel=1'
[ "$class" = kafka.Kafka ] && { log=log4j2; heap=${KAFKA_HEAP_OPTS:-'-Xms256M -Xmx1G'}; }
exec java $heap -XX:+UseSerialGC $KAFKA_OPTS $KAFKA_JVM_PERFORMANCE_OPTS \
  -Dlog4j2.configurationFile=/opt/kafka/config/$log.yaml -cp '/opt/kafka/libs/*' "$class" "$@"
