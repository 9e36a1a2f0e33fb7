//! Two roles of one process as one: for a process that is a master and a worker at once.
//!
//! Pure.

use std::sync::Arc;

use async_trait::async_trait;

use super::Probes;
use crate::metrics::Exposition;

/// Ready when both are; of figures that both tell, those of `first` count.
pub fn together(first: Arc<dyn Probes>, second: Arc<dyn Probes>) -> Arc<dyn Probes> {
    Arc::new(Together(first, second))
}

struct Together(Arc<dyn Probes>, Arc<dyn Probes>);

#[async_trait]
impl Probes for Together {
    fn ready(&self) -> Result<String, String> {
        let (first, second) = (self.0.ready()?, self.1.ready()?);
        Ok(format!("{first}; {second}"))
    }

    async fn metrics(&self) -> Exposition {
        let first = self.0.metrics().await;
        first.with(self.1.metrics().await)
    }
}
