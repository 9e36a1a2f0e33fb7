//! Who gets through to whom over TLS, with certificates that are right, of another authority, expired, of another name, or missing.

use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use millstream_common::net::tls::{MASTER_NAME, TlsFiles, TlsNet, WORKER_NAME};
use millstream_common::net::{Listener, MemoryNet, Net, NetRef};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// Makes certificates in a folder.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate's file and its key's.
type Identity = (PathBuf, PathBuf);

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("sign");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("write");
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, subject: &str) -> Identity {
        self.issue_until(subject, 2999)
    }

    fn issue_until(&self, subject: &str, year: i32) -> Identity {
        let mut params = CertificateParams::new(vec![subject.to_owned()]).expect("params");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign");
        let name = |kind| self.folder.path().join(format!("{subject}-{year}.{kind}"));
        std::fs::write(name("pem"), certificate.pem()).expect("write");
        std::fs::write(name("key"), key.serialize_pem()).expect("write");
        (name("pem"), name("key"))
    }
}

fn of_masters(wire: &NetRef, authority: &Authority, identity: Option<&Identity>) -> TlsNet {
    let file = authority.file();
    let files = TlsFiles {
        authority: &file,
        identity: identity.map(|(certificate, key)| (certificate.as_path(), key.as_path())),
    };
    TlsNet::of_masters(wire.clone(), files, None).expect("usable")
}

fn of_workers(wire: &NetRef, authority: &Authority, identity: &Identity) -> TlsNet {
    let file = authority.file();
    let files = TlsFiles {
        authority: &file,
        identity: Some((&identity.0, &identity.1)),
    };
    TlsNet::of_workers(wire.clone(), files).expect("usable")
}

fn wire() -> NetRef {
    Arc::new(MemoryNet::default())
}

/// Dials `address`, and says what comes back of a byte that whoever listens sends; the first caller that gets through is taken.
async fn meet(dials: &dyn Net, mut listener: Listener, address: &str) -> Result<bool, String> {
    let door = async {
        let mut met = listener
            .incoming
            .next()
            .await
            .expect("open")
            .expect("accepted");
        met.write_all(b"!").await.expect("write");
        met.flush().await.expect("flush");
        let info = tonic::transport::server::Connected::connect_info(&met);
        // Until the caller has read.
        let _ = met.read(&mut [0]).await;
        info.certificate.is_some()
    };
    let call = async {
        let mut connection = dials
            .connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let mut byte = [0];
        let read = connection.read_exact(&mut byte).await;
        read.map_err(|error| error.to_string()).map(drop)
    };
    tokio::pin!(door, call);
    tokio::select! {
        called = &mut call => { called?; Ok(door.await) }
        shown = &mut door => { call.await?; Ok(shown) }
    }
}

#[tokio::test]
async fn a_client_gets_through_without_a_certificate_and_is_known_by_one() {
    let (wire, authority) = (wire(), Authority::new());
    let identity = authority.issue("master");
    let serves = of_masters(&wire, &authority, Some(&identity));
    for (shown, is_known) in [(None, false), (Some(authority.issue("anybody")), true)] {
        let listener = serves.listen("master:7070").await.expect("listen");
        let dials = of_masters(&wire, &authority, shown.as_ref());
        assert_eq!(meet(&dials, listener, "master:7070").await, Ok(is_known));
    }
}

#[tokio::test]
async fn a_master_of_another_authority_name_or_time_is_not_talked_to() {
    let (wire, authority, other) = (wire(), Authority::new(), Authority::new());
    for (identity, told) in [
        (
            other.issue("master"),
            "not from an authority that --tls-ca names",
        ),
        (
            authority.issue("elsewhere"),
            "its certificate is not for master",
        ),
        (
            authority.issue_until("master", 2020),
            "its certificate has expired",
        ),
        (
            authority.issue(WORKER_NAME),
            "its certificate is not for master",
        ),
    ] {
        let serves = of_masters(&wire, &authority, Some(&identity));
        let listener = serves.listen("master:7070").await.expect("listen");
        let dials = of_masters(&wire, &authority, None);
        let error = meet(&dials, listener, "master:7070")
            .await
            .expect_err("refused");
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_master_lets_in_nobody_whose_certificate_does_not_hold() {
    let (wire, authority, other) = (wire(), Authority::new(), Authority::new());
    let identity = authority.issue("master");
    let serves = of_masters(&wire, &authority, Some(&identity));
    // Each trusts the master, and shows what the master does not trust.
    for shown in [
        other.issue("anybody"),
        authority.issue_until("anybody", 2020),
    ] {
        let listener = serves.listen("master:7070").await.expect("listen");
        let dials = of_masters(&wire, &authority, Some(&shown));
        let met = meet(&dials, listener, "master:7070").await;
        let error = met.expect_err("refused");
        assert!(error.contains("does not take the certificate"), "{error}");
    }
}

#[tokio::test]
async fn workers_send_rows_to_workers_and_to_nobody_else() {
    let (wire, authority, other) = (wire(), Authority::new(), Authority::new());
    let worker = authority.issue(WORKER_NAME);
    let serves = of_workers(&wire, &authority, &worker);
    let listener = serves.listen("worker:7080").await.expect("listen");
    assert_eq!(
        meet(
            &of_workers(&wire, &authority, &worker),
            listener,
            "worker:7080"
        )
        .await,
        Ok(true)
    );
    for shown in [authority.issue("client"), other.issue(WORKER_NAME)] {
        let listener = serves.listen("worker:7080").await.expect("listen");
        let dials = of_workers(&wire, &authority, &shown);
        meet(&dials, listener, "worker:7080")
            .await
            .expect_err("refused by the receiver");
        let posing = of_workers(&wire, &authority, &shown);
        let listener = posing.listen("worker:7080").await.expect("listen");
        let dials = of_workers(&wire, &authority, &worker);
        meet(&dials, listener, "worker:7080")
            .await
            .expect_err("refused by the sender");
    }
}

#[tokio::test]
async fn masters_reach_workers_and_are_never_taken_for_one() {
    let (wire, authority) = (wire(), Authority::new());
    let (worker, master) = (authority.issue(WORKER_NAME), authority.issue(MASTER_NAME));
    let serves = of_workers(&wire, &authority, &worker);
    let listener = serves.listen("worker:7080").await.expect("listen");
    let dials = of_workers(&wire, &authority, &master);
    assert_eq!(meet(&dials, listener, "worker:7080").await, Ok(true));
    let posing = of_workers(&wire, &authority, &master);
    let listener = posing.listen("worker:7080").await.expect("listen");
    meet(&serves, listener, "worker:7080")
        .await
        .expect_err("refused by the sender");
}

#[tokio::test]
async fn clear_text_and_tls_do_not_meet() {
    let (wire, authority) = (wire(), Authority::new());
    let identity = authority.issue("master");
    let serves = of_masters(&wire, &authority, Some(&identity));
    let listener = serves.listen("master:7070").await.expect("listen");
    let mut in_clear = wire.connect("master:7070").await.expect("connect");
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    in_clear.write_all(greeting).await.expect("write");
    let mut incoming = listener.incoming;
    let mut answer = Vec::new();
    tokio::select! {
        met = incoming.next() => panic!("it got through: {}", met.is_some()),
        read = in_clear.read_to_end(&mut answer) => { read.expect("closed"); }
    }
    let listener = wire.listen("master:7070").await.expect("listen");
    let dials = of_masters(&wire, &authority, None);
    let error = meet(&dials, listener, "master:7070")
        .await
        .expect_err("refused");
    assert!(error.contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn one_silent_caller_holds_up_nobody() {
    let (wire, authority) = (wire(), Authority::new());
    let identity = authority.issue("master");
    let serves = of_masters(&wire, &authority, Some(&identity));
    let listener = serves.listen("master:7070").await.expect("listen");
    let _silent = wire.connect("master:7070").await.expect("connect");
    let dials = of_masters(&wire, &authority, None);
    assert_eq!(meet(&dials, listener, "master:7070").await, Ok(false));
}

#[test]
fn files_that_make_no_certificate_are_named() {
    let (wire, authority) = (wire(), Authority::new());
    let (certificate, key) = authority.issue("master");
    let (_, other_key) = authority.issue("other");
    let gone = authority.folder.path().join("gone.pem");
    for (authority, identity, told) in [
        (&gone, None, "the authority's certificate in"),
        (&key, None, "it holds none (PEM)"),
        (&authority.file(), Some((&certificate, &gone)), "a key in"),
        (&authority.file(), Some((&certificate, &other_key)), "use"),
    ] {
        let files = TlsFiles {
            authority,
            identity: identity.map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        };
        let made = TlsNet::of_masters(wire.clone(), files, None);
        let error = made.err().expect("refused").to_string();
        assert!(
            error.contains(told) && error.contains("millstream certificates"),
            "{error}"
        );
    }
}

/// What a client that speaks both protocols is told to speak at each kind of door.
#[tokio::test]
async fn calls_are_made_in_one_protocol_and_pages_asked_for_in_another() {
    let (wire, authority) = (wire(), Authority::new());
    let net = of_masters(&wire, &authority, Some(&authority.issue("m")));
    let doors = [
        (net.listen("m:1").await, "m:1", "h2"),
        (net.listen_for_pages("m:2").await, "m:2", "http/1.1"),
    ];
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority.file()).expect("a certificate");
    roots.add(root).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    for (listener, address, protocol) in doors {
        let mut incoming = listener.expect("listen").incoming;
        let called = async {
            let connection = wire.connect(address).await.expect("connect");
            let name = ServerName::try_from("m").expect("a name");
            connector.connect(name, connection).await.expect("shake")
        };
        let (called, _met) = tokio::join!(called, incoming.next());
        let spoken = called.get_ref().1.alpn_protocol();
        assert_eq!(spoken, Some(protocol.as_bytes()), "{address}");
    }
}
