//! One connection to Postgres, set up so that neither side waits for ever.
//!
//! Opened by `mod.rs` when it fences, and by the master when it looks a table up before a job starts; dropped after any
//! error, which ends the connection and lets the server roll back. Owns the client and the task that moves its
//! bytes. The URL is resolved here and nowhere else, and no text of it but host, port, database and user is ever
//! shown. Failure: sorted by `error.rs` and `tls`; a url that cannot be read is refused.

use std::time::Duration;

use millstream_common::blocking::BlockingRef;
use millstream_common::secret;
use tokio::task::JoinSet;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};

use super::error::classify;
use super::tls::Tls;
use crate::sink::{Deliverer, SinkError};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent peer is asked after this, and given up about 20 s later.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 4;
/// Bytes that the peer does not acknowledge for this long end the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Postgres cuts longer names off.
const APPLICATION_NAME_BYTES_MAX: usize = 63;

/// Settings of each session. `synchronous_commit` is only ever raised: a marker that a crash of the server takes
/// back would take rows of later epochs for doubles. A deliverer that vanished must not keep its locks.
const SETTINGS: &str = "SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') = 'off'; \
     SET idle_in_transaction_session_timeout = '60s'; \
     SET TimeZone = 'UTC'; \
     SET client_min_messages = warning; \
     SET lock_timeout = '5s'";

/// A live connection.
pub struct Session {
    /// Where statements go.
    pub client: Client,
    /// `postgres at host:port/database as user`.
    pub address: String,
    _connection: JoinSet<()>,
}

impl Session {
    /// Connects to what `url` refers to; certificates are read in `blocking` work.
    pub async fn open(
        url: &str,
        application_name: &str,
        blocking: &BlockingRef,
    ) -> Result<Self, SinkError> {
        let Door {
            config,
            tls,
            address,
        } = configure(url, application_name)?;
        let what = format!("connect to {address}");
        let connecting = tls.connect(&config, &what, blocking);
        let Ok(connected) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await else {
            return Err(SinkError::unavailable(what, "no answer within 10 seconds"));
        };
        let (client, connection) = connected?;
        let mut tasks = JoinSet::new();
        let peer = address.clone();
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "postgres connection ended");
            }
        });
        client
            .batch_execute(SETTINGS)
            .await
            .map_err(|error| classify(&what, &error))?;
        Ok(Self {
            client,
            address,
            _connection: tasks,
        })
    }
}

/// A url that has been read.
struct Door {
    config: Config,
    tls: Tls,
    /// What people may see of it.
    address: String,
}

/// `millstream/<job>/<sink>/<token>`; long names are shortened, the token never.
pub(super) fn application_name(deliverer: &Deliverer) -> String {
    format!("{}{}", application_prefix(deliverer), deliverer.token)
}

/// [`application_name`] without the token: the same for every deliverer of a sink.
pub(super) fn application_prefix(deliverer: &Deliverer) -> String {
    const TOKEN_DIGITS_MAX: usize = 20;
    let plain = |name: &str| -> String {
        let kept = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        name.chars()
            .map(|letter| if kept(letter) { letter } else { '_' })
            .collect()
    };
    let job = plain(deliverer.job.as_str());
    let mut prefix = format!("millstream/{job}/{}", plain(&deliverer.sink));
    prefix.truncate(APPLICATION_NAME_BYTES_MAX - TOKEN_DIGITS_MAX - 1);
    prefix.push('/');
    prefix
}

fn configure(url: &str, application_name: &str) -> Result<Door, SinkError> {
    let unread = |cause: String| SinkError::refused("read the url of postgres", cause);
    let resolved = secret::resolve(url).map_err(|error| unread(error.to_string()))?;
    let (rest, tls) = Tls::split(resolved.expose()).map_err(unread)?;
    // The driver's own text may quote a piece of a badly encoded password.
    let parsed: Result<Config, _> = rest.parse();
    let mut config = parsed.map_err(|_| {
        unread(
            "it is not of the form postgres://user:password@host:port/database; \
             write special characters of the password as %XX"
                .to_owned(),
        )
    })?;
    let address = address_of(&config)?;
    config
        .application_name(application_name)
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX);
    Ok(Door {
        config,
        tls,
        address,
    })
}

fn address_of(config: &Config) -> Result<String, SinkError> {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) if !host.is_empty() => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        Some(Host::Tcp(_)) | None => {
            return Err(SinkError::refused(
                "read the url of postgres",
                "it names no host: write postgres://user@host:port/database",
            ));
        }
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or("postgres");
    let database = config.get_dbname().unwrap_or(user);
    Ok(format!("postgres at {host}:{port}/{database} as {user}"))
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::{Incarnation, JobName, Token};

    use super::*;

    fn deliverer(job: &str, sink: &str, token: u64) -> Deliverer {
        Deliverer {
            job: JobName::from(job),
            incarnation: Incarnation(uuid::Uuid::nil()),
            sink: sink.to_owned(),
            token: Token(token),
            rewind: None,
        }
    }

    #[test]
    fn an_address_shows_no_password() {
        let url = "postgres://ann:se%2Fcret@db.example:5433/shop?sslmode=disable";
        let door = configure(url, "x").expect("a url");
        assert_eq!(door.address, "postgres at db.example:5433/shop as ann");
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for url in [
            "postgres://ann:x@db/shop?hunter2=1",
            "postgres://ann:hunter2@db/shop?sslmode=hunter2",
            "nonsense hunter2",
            "postgres:///shop",
        ] {
            let refused = configure(url, "x").err().map(|error| error.to_string());
            let text = refused.expect(url);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn an_application_name_keeps_its_token() {
        assert_eq!(
            application_name(&deliverer("clicks", "views/pg", 17)),
            "millstream/clicks/views_pg/17"
        );
        let long = application_name(&deliverer(&"j".repeat(80), "s", 17));
        assert!(long.len() < 63 && long.ends_with("/17"), "{long}");
    }
}
