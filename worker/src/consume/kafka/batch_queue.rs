//! librdkafka's batch calls as safe types: the only way to its full rate, and not in rdkafka's safe API.
//!
//! Called by `reader_thread.rs`. Owns the client, its two queues and the messages lent at present. All
//! unsafe code of the readers is here; its rules: a message is destroyed before the client, once; a payload is
//! borrowed no longer than its message; a queue reference is given back before the client goes.
//! Failure: none of its own; errors of the client come as messages ([`Delivery::Error`]) or as notes.

#![allow(
    unsafe_code,
    reason = "rd_kafka_consume_batch_queue is bound only as a foreign function"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use crate::decode::HeaderLookup;

/// A message of the client: a record, or word of a partition. Destroyed when dropped.
#[repr(transparent)]
pub(super) struct Message(NonNull<native::rd_kafka_message_t>);

/// What a message is.
pub(super) enum Delivery<'a> {
    /// A record.
    Record,
    /// The partition has been read up to [`Message::offset`], and there is no more at present.
    EndOfPartition,
    /// The client cannot go on with the partition, or with anything.
    Error {
        /// A value of `rd_kafka_resp_err_t`, perhaps one newer than the bindings.
        code: i32,
        /// The client's words.
        text: std::borrow::Cow<'a, str>,
    },
}

impl Message {
    /// What it is.
    pub(super) fn delivery(&self) -> Delivery<'_> {
        // SAFETY: `err` is the first field, an enum with the layout of i32; read as a number, since a broker may
        // send a code that the bindings do not know.
        let code = unsafe { ptr::addr_of!((*self.0.as_ptr()).err).cast::<i32>().read() };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR as i32 {
            Delivery::Record
        } else if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 {
            Delivery::EndOfPartition
        } else {
            let text = String::from_utf8_lossy(self.payload().unwrap_or_default());
            Delivery::Error { code, text }
        }
    }

    /// The partition; negative where an error concerns none.
    pub(super) fn partition(&self) -> i32 {
        // SAFETY: both fields are plain values of the live message. An error that concerns no partition carries no
        // topic, and 0 as partition.
        unsafe {
            let message = self.0.as_ptr();
            if (*message).rkt.is_null() {
                -1
            } else {
                (*message).partition
            }
        }
    }

    /// The record's offset, or the one that an end or an error is at.
    pub(super) fn offset(&self) -> i64 {
        // SAFETY: a plain value of the live message.
        unsafe { (*self.0.as_ptr()).offset }
    }

    /// The value; `None` is null.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        let message = self.0.as_ptr();
        // SAFETY: the client keeps `len` bytes at `payload` as long as the message.
        unsafe { lent((*message).payload, (*message).len) }
    }

    /// The key; `None` is null.
    pub(super) fn key(&self) -> Option<&[u8]> {
        let message = self.0.as_ptr();
        // SAFETY: the client keeps `key_len` bytes at `key` as long as the message.
        unsafe { lent((*message).key, (*message).key_len) }
    }

    /// Milliseconds since 1970 UTC, if the record carries a time.
    pub(super) fn timestamp_ms(&self) -> Option<i64> {
        // SAFETY: the message lives; a null type pointer is allowed.
        let timestamp =
            unsafe { native::rd_kafka_message_timestamp(self.0.as_ptr(), ptr::null_mut()) };
        (timestamp >= 0).then_some(timestamp)
    }
}

/// # Safety
/// `bytes` is null, or points at `len` bytes that live and do not change for `'a`.
unsafe fn lent<'a>(bytes: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) })
}

impl HeaderLookup for Message {
    fn last(&self, name: &CStr) -> Option<&[u8]> {
        let mut headers = ptr::null_mut();
        let mut value: *const c_void = ptr::null();
        let mut size = 0;
        // SAFETY: the message lives; the headers it hands out, parsed at the first call, belong to it and live
        // as long. The message is used by one thread only (it is not Send).
        unsafe {
            let found = native::rd_kafka_message_headers(self.0.as_ptr(), &mut headers);
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            let found =
                native::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size);
            if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            lent(value, size)
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Message({}:{})", self.partition(), self.offset())
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: this is the one owner of the message, and the client outlives it: `BatchConsumer` drops its
        // messages first and lends them no longer than itself.
        unsafe { native::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// A counted reference to one of the client's queues.
struct Queue(NonNull<native::rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference is ours and given back once, before the client goes (field order of `BatchConsumer`).
        unsafe { native::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

// SAFETY: librdkafka's queues lock themselves; the only call made through a reference on another thread than the
// client's is `rd_kafka_queue_yield`.
unsafe impl Send for Queue {}

/// Ends a wait of the client from any thread; does nothing before the client is there and after it went.
#[derive(Clone, Default)]
pub(super) struct Waker(Arc<Mutex<Option<Queue>>>);

impl Waker {
    /// Ends the present wait, or the next if there is none.
    pub(super) fn wake(&self) {
        let queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            // SAFETY: the reference is valid while the lock is held: the client takes it out before it goes.
            unsafe { native::rd_kafka_queue_yield(queue.0.as_ptr()) }
        }
    }

    fn set(&self, queue: Option<Queue>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = queue;
    }
}

/// What the client says beside messages.
pub(super) enum ClientNote {
    /// Something went wrong that concerns no partition; most is retried by the client.
    Error {
        /// A value of `rd_kafka_resp_err_t`.
        code: i32,
        /// The client's words.
        text: String,
    },
    /// A log line.
    Log {
        /// As in syslog: 3 is an error, 7 is chatter.
        level: i32,
        /// The client's words.
        text: String,
    },
    /// Statistics, as JSON.
    Statistics(Vec<u8>),
}

/// Notes taken at once; more wait for the next call.
const NOTES_MAX: usize = 100;

/// A consumer whose messages come in batches.
pub(super) struct BatchConsumer {
    // Dropped in this order: messages, queues, client.
    messages: Vec<Message>,
    queue: Queue,
    main_queue: Queue,
    waker: Waker,
    consumer: BaseConsumer,
}

impl BatchConsumer {
    /// A consumer that holds at most `message_count_max` messages at once. `config` names a group.
    pub(super) fn new(
        config: &ClientConfig,
        message_count_max: usize,
        waker: Waker,
    ) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer = config.create()?;
        let client = consumer.client().native_ptr();
        let no_queue = || KafkaError::ClientCreation("no queue".to_owned());
        // SAFETY: the client lives; each call hands out a reference of its own, or null.
        let (queue, for_waker, main_queue) = unsafe {
            (
                native::rd_kafka_queue_get_consumer(client),
                native::rd_kafka_queue_get_consumer(client),
                native::rd_kafka_queue_get_main(client),
            )
        };
        let queue = Queue(NonNull::new(queue).ok_or_else(no_queue)?);
        let for_waker = Queue(NonNull::new(for_waker).ok_or_else(no_queue)?);
        let main_queue = Queue(NonNull::new(main_queue).ok_or_else(no_queue)?);
        // The wrapper forwards the main queue into the consumer's, where the batch call would print errors and log
        // lines instead of returning them. SAFETY: both queues live; null ends the forwarding.
        unsafe { native::rd_kafka_queue_forward(main_queue.0.as_ptr(), ptr::null_mut()) };
        waker.set(Some(for_waker));
        Ok(Self {
            messages: Vec::with_capacity(message_count_max),
            queue,
            main_queue,
            waker,
            consumer,
        })
    }

    /// Adds messages to those held, until `count_max` have come, `wait` is over, or the waker is
    /// called while there are none. Returns how many came.
    pub(super) fn fill(&mut self, wait: Duration, count_max: usize) -> usize {
        let spare = self.messages.spare_capacity_mut();
        let room = spare.len().min(count_max);
        let wait_ms = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: `spare` has room for `room` pointers, and `Message` has the layout of one; the client writes at
        // most `room`, none of them null.
        let come = unsafe {
            native::rd_kafka_consume_batch_queue(
                self.queue.0.as_ptr(),
                wait_ms,
                spare.as_mut_ptr().cast(),
                room,
            )
        };
        let come = usize::try_from(come).unwrap_or(0);
        // SAFETY: the client has written `come` messages behind those that were there, and they are ours now.
        unsafe { self.messages.set_len(self.messages.len() + come) };
        come
    }

    /// The messages held.
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Lets go of all messages held.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }

    /// The client's safe calls: assignment and commits.
    pub(super) fn client(&self) -> &BaseConsumer {
        &self.consumer
    }

    /// The next offset to be written to the partition, as of the last fetch from it.
    pub(super) fn high_watermark(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let mut low = -1;
        let mut high = -1;
        // SAFETY: the client and the text live; both results are ours.
        let known = unsafe {
            native::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
            )
        };
        (known == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }

    /// What the client has said since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<ClientNote> {
        let mut notes = Vec::new();
        while notes.len() < NOTES_MAX {
            // SAFETY: the queue lives; the event is ours until destroyed below.
            let event = unsafe { native::rd_kafka_queue_poll(self.main_queue.0.as_ptr(), 0) };
            if event.is_null() {
                break;
            }
            // SAFETY: the event lives until the next line.
            notes.extend(unsafe { note_of(event) });
            // SAFETY: nothing of the event is kept: `note_of` copies.
            unsafe { native::rd_kafka_event_destroy(event) };
        }
        notes
    }
}

impl Drop for BatchConsumer {
    /// The client's destructor empties the main queue and whatever that is forwarded to, and waits for the connections
    /// that queued messages hold: so the consumer's queue has to be in its reach again, or it waits for ever.
    fn drop(&mut self) {
        self.waker.set(None);
        // SAFETY: both queues live until the fields are dropped, behind this.
        unsafe {
            native::rd_kafka_queue_forward(self.main_queue.0.as_ptr(), self.queue.0.as_ptr());
        }
    }
}

/// # Safety
/// `event` is a live event of the client.
unsafe fn note_of(event: *mut native::rd_kafka_event_t) -> Option<ClientNote> {
    // SAFETY: each call reads the live event; texts live as long as it and are copied.
    unsafe {
        match native::rd_kafka_event_type(event) {
            native::RD_KAFKA_EVENT_ERROR => Some(ClientNote::Error {
                code: native::rd_kafka_event_error(event) as i32,
                text: text_of(native::rd_kafka_event_error_string(event)),
            }),
            native::RD_KAFKA_EVENT_LOG => {
                let mut facility: *const c_char = ptr::null();
                let mut text: *const c_char = ptr::null();
                let mut level = 0;
                let read = native::rd_kafka_event_log(event, &mut facility, &mut text, &mut level);
                (read == 0).then(|| ClientNote::Log {
                    level,
                    text: text_of(text),
                })
            }
            native::RD_KAFKA_EVENT_STATS => {
                let json = native::rd_kafka_event_stats(event);
                (!json.is_null())
                    .then(|| ClientNote::Statistics(CStr::from_ptr(json).to_bytes().to_vec()))
            }
            _ => None,
        }
    }
}

/// # Safety
/// `text` is null or a text of C.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
