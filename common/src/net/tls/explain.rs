//! What goes wrong with TLS, in the words of whoever dialled.
//!
//! Part of `tls`: wraps what a dial yields. Failure: none of its own, it only says of errors what they mean.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{CertificateError, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a failed handshake means to whoever dialled.
pub(super) fn in_words(error: &io::Error, name: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(tls) = inner else {
        return format!("TLS: {error}; does it speak TLS?");
    };
    match tls {
        // The other authority may have the same name, with another key.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "its certificate is not from an authority that --tls-ca names".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is not for {name}; dial a name that stands in it"),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired".to_owned(),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS; leave --tls-ca out, or start it with TLS".to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

/// A connection we have dialled. Whether the other side takes our certificate is only known by what is read first (TLS 1.3).
pub(super) struct Dialled<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for Dialled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        read.map_err(explain_alert)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Dialled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// An alert says what the other side objects to, in the words of the protocol.
fn explain_alert(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(rustls::Error::AlertReceived(alert)) = inner else {
        return error;
    };
    let text = format!(
        "the other side does not take the certificate of --tls-cert ({alert:?}): it must be from the authority that both \
         sides name with --tls-ca, and must not have expired"
    );
    io::Error::new(error.kind(), text)
}
