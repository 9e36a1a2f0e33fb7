//! Savepoints to and from generated messages, field by field.

use millstream_proto::v1;

use crate::control::SavepointView;
use crate::ids::Epoch;

impl From<SavepointView> for v1::Savepoint {
    fn from(savepoint: SavepointView) -> Self {
        Self {
            name: savepoint.name,
            epoch: savepoint.epoch.0,
            made_at_us: savepoint.made_at_us,
            state_parts: savepoint.state_parts,
            state_bytes: savepoint.state_bytes,
        }
    }
}

impl From<v1::Savepoint> for SavepointView {
    fn from(savepoint: v1::Savepoint) -> Self {
        Self {
            name: savepoint.name,
            epoch: Epoch(savepoint.epoch),
            made_at_us: savepoint.made_at_us,
            state_parts: savepoint.state_parts,
            state_bytes: savepoint.state_bytes,
        }
    }
}
