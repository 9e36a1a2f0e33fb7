//! Batches to objects and back: Arrow IPC streams with a checksum beside them.
//!
//! Used by workers for segments and state parts, and by the master where a person asks for dead letters or sends rows again.
//! Keeps INV-8: what is read is checked against the checksum that the log holds; an object that differs is refused, never half
//! used.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use bytes::Bytes;

use crate::error::Kind;
use crate::ids::nonce;
use crate::mutant::{self, Mutant};
use crate::store::{self, PieceGatherer, Pieces, StoreRef};

/// What reading or writing an object can fail with.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Arrow cannot encode or decode it.
    #[error("encode or decode {path}: {source}")]
    Arrow {
        /// The object's key.
        path: String,
        /// What Arrow says.
        source: ArrowError,
    },
    /// The object is not what the log says.
    #[error(
        "{path} is damaged: its checksum is {found:08x}, the log says {expected:08x}; restore the storage from a backup"
    )]
    Damaged {
        /// The object's key.
        path: String,
        /// Of the bytes read.
        found: u32,
        /// Of the bytes written.
        expected: u32,
    },
    /// The log names an object that is not there.
    #[error(
        "{path} is missing in storage, but the log refers to it; restore the storage from a backup"
    )]
    Missing {
        /// The object's key.
        path: String,
    },
    /// The storage does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl ObjectError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Arrow { .. } => Kind::Internal,
            Self::Damaged { .. } | Self::Missing { .. } => Kind::User,
            Self::Store(error) => error.kind(),
        }
    }
}

/// An object ready to be stored.
#[derive(Clone, Debug)]
pub struct EncodedObject {
    /// The IPC stream; what is not compressed shares the memory of the batches.
    pub bytes: Pieces,
    /// CRC-32C of it.
    pub checksum: u32,
}

impl From<Bytes> for EncodedObject {
    /// What is encoded in another way.
    fn from(bytes: Bytes) -> Self {
        Self {
            checksum: crc32c::crc32c(&bytes),
            bytes: Pieces::from(bytes),
        }
    }
}

/// Encodes batches of one schema; LZ4 where there is enough to be worth it.
pub fn encode(
    path: &str,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<EncodedObject, ObjectError> {
    /// Below this, compression costs more than it saves.
    const COMPRESSED_FROM_BYTES: usize = 16 << 10;
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    encode_as(path, schema, batches, bytes >= COMPRESSED_FROM_BYTES)
}

/// Encodes a batch of what nothing makes shorter, as hashes are.
pub fn encode_plain(path: &str, batch: &RecordBatch) -> Result<EncodedObject, ObjectError> {
    encode_as(path, &batch.schema(), std::slice::from_ref(batch), false)
}

fn encode_as(
    path: &str,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    is_compressed: bool,
) -> Result<EncodedObject, ObjectError> {
    let failed = |source| ObjectError::Arrow {
        path: path.to_owned(),
        source,
    };
    let compression = is_compressed.then_some(CompressionType::LZ4_FRAME);
    let options = IpcWriteOptions::default()
        .try_with_compression(compression)
        .map_err(failed)?;
    let mut encoder = StreamEncoder::try_new_with_options(schema, options).map_err(failed)?;
    let mut gatherer = PieceGatherer::default();
    for batch in batches {
        let buffers = encoder.encode(batch).map_err(failed)?;
        buffers
            .into_iter()
            .for_each(|buffer| gatherer.add(Shared(buffer)));
    }
    let buffers = encoder.finish().map_err(failed)?;
    buffers
        .into_iter()
        .for_each(|buffer| gatherer.add(Shared(buffer)));
    let bytes = gatherer.finish();
    let checksum = bytes
        .iter()
        .fold(0, |checksum, piece| crc32c::crc32c_append(checksum, piece));
    Ok(EncodedObject { bytes, checksum })
}

/// Memory of a batch.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Reads and decodes the object at `path`, checked against `checksum`.
pub async fn load(
    store: &StoreRef,
    path: &str,
    checksum: u32,
) -> Result<Vec<RecordBatch>, ObjectError> {
    let bytes = load_bytes(store, path).await?;
    decode(path, &bytes, checksum)
}

/// Reads the object at `path` as it is, checked against `checksum`.
pub async fn fetch(store: &StoreRef, path: &str, checksum: u32) -> Result<Bytes, ObjectError> {
    let bytes = load_bytes(store, path).await?;
    verify(path, &bytes, checksum)?;
    Ok(bytes)
}

/// Reads the object at `path` as it is, for [`decode`] to check.
pub async fn load_bytes(store: &StoreRef, path: &str) -> Result<Bytes, ObjectError> {
    let found = store.get(path).await?;
    found.ok_or_else(|| ObjectError::Missing {
        path: path.to_owned(),
    })
}

/// Decodes an object. What is not compressed is not copied: the batches share the memory of `bytes`.
pub fn decode(path: &str, bytes: &Bytes, checksum: u32) -> Result<Vec<RecordBatch>, ObjectError> {
    verify(path, bytes, checksum)?;
    let read = || {
        let mut rest = Buffer::from(bytes.clone());
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while let Some(batch) = decoder.decode(&mut rest)? {
            batches.push(batch);
        }
        decoder.finish()?;
        Ok(batches)
    };
    read().map_err(|source| ObjectError::Arrow {
        path: path.to_owned(),
        source,
    })
}

fn verify(path: &str, bytes: &Bytes, expected: u32) -> Result<(), ObjectError> {
    let found = crc32c::crc32c(bytes);
    if found != expected && !mutant::is(Mutant::SkipChecksum) {
        return Err(ObjectError::Damaged {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    Ok(())
}

/// Creates an object under a name that no other write uses: a retry after an unknown result is harmless.
pub async fn create(
    store: &StoreRef,
    path: &str,
    object: &EncodedObject,
) -> Result<(), ObjectError> {
    match store.create_pieces(path, &object.bytes).await {
        Ok(()) => Ok(()),
        Err(store::Error::Exists { .. }) => match store.get(path).await? {
            Some(found) if object.bytes == found[..] => Ok(()),
            _ => Err(ObjectError::Damaged {
                path: path.to_owned(),
                found: 0,
                expected: object.checksum,
            }),
        },
        Err(error) => Err(error.into()),
    }
}

/// CRC-32C of some bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// A name part that tells this attempt's objects from any other's.
pub fn attempt() -> String {
    nonce().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        RecordBatch::try_new(
            schema,
            vec![Arc::new(Int64Array::from_iter_values(0..10_000))],
        )
        .expect("batch")
    }

    #[test]
    fn an_object_reads_back_as_it_was_written() {
        let batch = batch();
        let object = encode("a", &batch.schema(), std::slice::from_ref(&batch)).expect("encode");
        assert_eq!(
            decode("a", &object.bytes.whole(), object.checksum).expect("decode"),
            [batch]
        );
    }

    #[test]
    fn a_damaged_object_is_refused() {
        let object = encode("a", &batch().schema(), &[batch()]).expect("encode");
        let mut bytes = object.bytes.to_vec();
        bytes[100] ^= 1;
        let refused = decode("a", &Bytes::from(bytes), object.checksum);
        assert!(
            matches!(refused, Err(ObjectError::Damaged { .. })),
            "{refused:?}"
        );
    }
}
