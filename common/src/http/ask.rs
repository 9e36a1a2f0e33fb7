//! One question to a small HTTP server over any network, and its answer as it comes.
//!
//! For tests and tools that look at what [`serve`](super::serve) serves; knows no redirects, no chunks and no encodings, for that server
//! uses none where a connection is closed behind the answer. Failure: the network's.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::Net;

/// Head and body of the answer of `address` to `request` (`GET /metrics`). Each of `headers` ends its line.
pub async fn ask(net: &dyn Net, address: &str, request: &str, headers: &str) -> io::Result<String> {
    let mut connection = net.connect(address).await?;
    let text =
        format!("{request} HTTP/1.1\r\nhost: {address}\r\n{headers}connection: close\r\n\r\n");
    connection.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
