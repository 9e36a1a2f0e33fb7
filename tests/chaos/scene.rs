//! Where it all happens: services of this run alone, a proxy in front of everything that listens, and the cluster.
//!
//! Made by `main.rs`. Owns all of it; everything ends when it is dropped. Failure: what does not start says why.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use millstream_tests::cluster::{Cluster, Door, Outfit};
use millstream_tests::database::Database;
use millstream_tests::proxy::Proxy;
use millstream_tests::services::PrivateServices;
use millstream_tests::small_disk::SmallDisk;
use millstream_tests::topic::Topic;

use crate::fault::{Backend, Link};
use crate::jobs;

pub(crate) const MASTER_COUNT: usize = 2;
pub(crate) const WORKER_COUNT: usize = 3;
const PARTITION_COUNT: i32 = 4;
const DISK_MEGABYTES: u32 = 512;
/// Of the disk.
const LAKE: &str = "lake";

/// Everything that runs.
pub(crate) struct Scene {
    // Dropped before what it runs on.
    pub(crate) cluster: Cluster,
    pub(crate) clicks: Arc<Topic>,
    pub(crate) copies: Arc<Topic>,
    pub(crate) numbers: Arc<Topic>,
    /// Reached past the proxy.
    pub(crate) database: Arc<Database>,
    pub(crate) disk: SmallDisk,
    proxies: Proxies,
    pub(crate) services: Arc<PrivateServices>,
}

struct Proxies {
    masters: Vec<Proxy>,
    workers: Vec<Proxy>,
    kafka: Proxy,
    postgres: Proxy,
    storage: Proxy,
}

impl Proxies {
    async fn open() -> anyhow::Result<Self> {
        Ok(Self {
            masters: open_all(MASTER_COUNT).await?,
            workers: open_all(WORKER_COUNT).await?,
            kafka: Proxy::open().await?,
            postgres: Proxy::open().await?,
            storage: Proxy::open().await?,
        })
    }
}

async fn open_all(count: usize) -> anyhow::Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    for _ in 0..count {
        proxies.push(Proxy::open().await?);
    }
    Ok(proxies)
}

impl Scene {
    /// Starts the services, the cluster and the jobs.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let proxies = Proxies::open().await?;
        let kafka_advertised = proxies.kafka.address();
        let names = ["kafka", "postgres", "s3"];
        let private = PrivateServices::start_behind(Some(&kafka_advertised), &names)?;
        let services = private.services()?;
        proxies.kafka.carry_to(&services.kafka);
        let database = Database::create(&services.postgres, "chaos").await?;
        let topic = |name| Topic::create(&services.kafka, name, PARTITION_COUNT);
        let (clicks, copies) = (topic("clicks").await?, topic("copies").await?);
        let numbers = topic("numbers").await?;
        let disk = SmallDisk::mount(DISK_MEGABYTES).await?;
        let bucket = private.bucket()?;
        let mut environment = Vec::new();
        for (name, value) in &bucket.environment {
            let value = match *name {
                "AWS_ENDPOINT_URL" => through(&proxies.storage, value)?,
                _ => value.clone(),
            };
            environment.push((*name, value));
        }
        environment.extend([
            ("KAFKA_BROKERS", kafka_advertised),
            ("POSTGRES_URL", through(&proxies.postgres, &database.url)?),
            ("CLICKS_TOPIC", clicks.name.clone()),
            ("COPIES_TOPIC", copies.name.clone()),
            ("NUMBERS_TOPIC", numbers.name.clone()),
            ("LAKE_FOLDER", disk.path()?.join(LAKE).display().to_string()),
        ]);
        let cluster = Cluster::start_with(Outfit {
            storage: bucket.new_url("chaos"),
            environment,
            masters: proxies.masters.iter().map(door).collect(),
            workers: proxies.workers.iter().map(door).collect(),
        });
        let scene = Self {
            cluster: cluster.await?,
            clicks: Arc::new(clicks),
            copies: Arc::new(copies),
            numbers: Arc::new(numbers),
            database: Arc::new(database),
            disk,
            proxies,
            services: Arc::new(private),
        };
        jobs::submit(&scene.cluster).await?;
        Ok(scene)
    }

    /// The proxy in front of what is behind `link`.
    pub(crate) async fn proxy(&self, link: Link) -> anyhow::Result<&Proxy> {
        Ok(match link {
            Link::Master => &self.proxies.masters[self.cluster.active_master().await?],
            Link::Worker(index) => &self.proxies.workers[index],
            Link::Backend(Backend::Kafka) => &self.proxies.kafka,
            Link::Backend(Backend::Postgres) => &self.proxies.postgres,
            Link::Backend(Backend::Storage) => &self.proxies.storage,
        })
    }

    /// The folder of the files sink.
    pub(crate) fn lake(&self) -> anyhow::Result<PathBuf> {
        Ok(self.disk.path()?.join(LAKE))
    }
}

fn door(proxy: &Proxy) -> Door {
    Door {
        listen: proxy.behind(),
        advertise: Some(proxy.address()),
    }
}

/// The URL with the proxy in the place of its host and port; the proxy carries to them.
fn through(proxy: &Proxy, url: &str) -> anyhow::Result<String> {
    let begin = url.find("://").context("find the host of a URL")? + "://".len();
    let begin = url[begin..].find('@').map_or(begin, |at| begin + at + 1);
    let end = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    proxy.carry_to(&url[begin..end]);
    Ok(format!(
        "{}{}{}",
        &url[..begin],
        proxy.address(),
        &url[end..]
    ))
}
