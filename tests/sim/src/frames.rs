//! What masters and workers say to each other, as steps of the protocol: found in the bytes of their connections.
//!
//! Used by the simulated network while the step matrix waits for a frame. Reads as much of HTTP/2 and gRPC as it needs to tell one
//! message from the next; the first field of a message says which it is (`proto/millstream/v1/link.proto`). Pure but for the trap.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::outside::Outside;
use crate::outside::trap::Moment;

/// A client begins with this many bytes before its first frame.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
/// A flag and a length come before each message.
const PREFIX_BYTES: usize = 5;

/// Who speaks on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Worker,
    Master,
}

/// The frames that one side has sent.
#[derive(Clone)]
struct Frames {
    speaker: Speaker,
    preface_left: usize,
    bytes: Vec<u8>,
    streams: BTreeMap<u32, Vec<u8>>,
}

impl Frames {
    fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            preface_left: match speaker {
                Speaker::Worker => PREFACE_BYTES,
                Speaker::Master => 0,
            },
            bytes: Vec::new(),
            streams: BTreeMap::new(),
        }
    }

    /// The steps that are complete with these bytes.
    fn feed(&mut self, bytes: &[u8]) -> Vec<&'static str> {
        let skipped = self.preface_left.min(bytes.len());
        self.preface_left -= skipped;
        self.bytes.extend_from_slice(&bytes[skipped..]);
        let mut steps = Vec::new();
        while let Some([first, second, third, kind, _, stream @ ..]) =
            self.bytes.first_chunk::<HEADER_BYTES>()
        {
            let length = u32::from_be_bytes([0, *first, *second, *third]) as usize;
            let end = HEADER_BYTES + length;
            if self.bytes.len() < end {
                break;
            }
            let (is_data, stream) = (*kind == DATA, u32::from_be_bytes(*stream));
            let frame: Vec<u8> = self.bytes.drain(..end).skip(HEADER_BYTES).collect();
            if is_data {
                self.messages(stream, &frame, &mut steps);
            }
        }
        steps
    }

    fn messages(&mut self, stream: u32, data: &[u8], steps: &mut Vec<&'static str>) {
        let waiting = self.streams.entry(stream).or_default();
        waiting.extend_from_slice(data);
        while let Some([_, length @ ..]) = waiting.first_chunk::<PREFIX_BYTES>() {
            let end = PREFIX_BYTES + u32::from_be_bytes(*length) as usize;
            if waiting.len() < end {
                break;
            }
            let message: Vec<u8> = waiting.drain(..end).skip(PREFIX_BYTES).collect();
            steps.extend(step(self.speaker, &message));
        }
    }
}

/// The name of the step that a message is.
fn step(speaker: Speaker, message: &[u8]) -> Option<&'static str> {
    let key = *message.first()?;
    // A field number above 15 takes a second byte.
    let field = match key & 0x80 {
        0 => u32::from(key >> 3),
        _ => (u32::from(key & 0x7f) >> 3) | (u32::from(*message.get(1)?) << 4),
    };
    let step = match (speaker, field) {
        (Speaker::Worker, 1) => "say hello",
        (Speaker::Worker, 3) => "say deployed",
        (Speaker::Worker, 4) => "say snapshotted",
        (Speaker::Worker, 6) => "say sink advanced",
        (Speaker::Worker, 8) => "say torn down",
        (Speaker::Master, 1) => "tell welcome",
        (Speaker::Master, 2) => "tell deploy",
        (Speaker::Master, 3) => "tell start",
        (Speaker::Master, 4) => "tell barrier",
        (Speaker::Master, 5) => "tell epoch committed",
        (Speaker::Master, 7) => "tell teardown",
        (Speaker::Master, 9) => "tell resume",
        _ => return None,
    };
    Some(step)
}

/// Whether a step of that name is a frame.
pub(crate) fn is_frame(step: &str) -> bool {
    step.starts_with("say ") || step.starts_with("tell ")
}

/// Watches what one side sends on a connection.
pub(crate) struct Tap {
    frames: Frames,
    host: String,
    peer: String,
    outside: Arc<Outside>,
    /// Steps of bytes that have not been taken yet and were looked at.
    counted: usize,
    /// The trap closes when the bytes are on their way.
    is_due: bool,
    /// The sender is stopped before its step.
    is_stuck: bool,
}

impl Tap {
    /// For what `host` sends to `peer`; none where nobody waits for a frame.
    pub(crate) fn new(
        outside: &Arc<Outside>,
        speaker: Speaker,
        host: &str,
        peer: &str,
    ) -> Option<Self> {
        let is_wanted = outside.with(|world| {
            let trap = world.trap.as_ref();
            trap.is_some_and(|trap| is_frame(trap.step))
        });
        is_wanted.then(|| Self {
            frames: Frames::new(speaker),
            host: host.to_owned(),
            peer: peer.to_owned(),
            outside: outside.clone(),
            counted: 0,
            is_due: false,
            is_stuck: false,
        })
    }

    /// `bytes` are about to be sent; whether they never will be.
    pub(crate) fn holds_back(&mut self, bytes: &[u8]) -> bool {
        if self.is_stuck {
            return true;
        }
        let steps = self.frames.clone().feed(bytes);
        for step in steps.into_iter().skip(self.counted) {
            self.counted += 1;
            match self.outside.meet(step) {
                None => {}
                Some(Moment::Before) => self.is_stuck = self.spring(),
                Some(Moment::Sent | Moment::Applied | Moment::Answered) => self.is_due = true,
            }
        }
        self.is_stuck
    }

    /// `bytes` are on their way.
    pub(crate) fn passed(&mut self, bytes: &[u8]) {
        let count = self.frames.feed(bytes).len();
        self.counted = self.counted.saturating_sub(count);
        if count > 0 && std::mem::take(&mut self.is_due) {
            self.spring();
        }
    }

    fn spring(&self) -> bool {
        let Self { host, peer, .. } = self;
        self.outside.with(|world| world.spring(host, Some(peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, 0, 0, 0, 0, stream];
        frame.extend_from_slice(payload);
        frame
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 0, 0, 0, body.len() as u8];
        message.extend_from_slice(body);
        message
    }

    #[test]
    fn a_message_is_a_step_when_its_last_byte_is_there_however_it_was_cut() {
        let hello = message(&[0x0a, 3, 0x0a, 1, b'w']);
        let leaving = message(&[0xa2, 1, 0]);
        let snapshotted = message(&[0x22, 0]);
        let mut sent = vec![b'P'; PREFACE_BYTES];
        sent.extend(frame(4, 0, &[0; 6]));
        sent.extend(frame(DATA, 1, &hello[..4]));
        sent.extend(frame(DATA, 3, &snapshotted));
        sent.extend(frame(DATA, 1, &[&hello[4..], &leaving].concat()));
        for size in [1, 7, sent.len()] {
            let mut frames = Frames::new(Speaker::Worker);
            let steps = sent.chunks(size).flat_map(|chunk| frames.feed(chunk));
            let steps: Vec<_> = steps.collect();
            assert_eq!(steps, ["say snapshotted", "say hello"], "cut at {size}");
        }
    }
}
