//! One connection to a cluster: its controller, and the leaders of partitions.
//!
//! Invariants: every call has a bound. What was learned of topics and leaders is as old as the connection; whoever
//! meets an error drops it all and connects again.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use fluvio::FluvioAdmin;
use fluvio::dataplane::api::Request;
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::metadata::topic::{CleanupPolicy, SegmentBasedPolicy, TopicSpec};
use fluvio_socket::{ClientConfig, MultiplexerSocket, VersionedSerialSocket};

use super::{FluvioConfig, FluvioError};

/// A connection, TLS and the exchange of versions included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// One call, until its answer is read: longer than a leader may wait for its replicas.
const CALL_WITHIN: Duration = Duration::from_secs(15);
/// From asking for a topic until all of its partitions have a leader: a cluster that starts takes some seconds.
const TOPIC_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a topic that is not ready.
const LOOK: Duration = Duration::from_millis(200);

/// A topic and who leads its partitions.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    /// The leader of each partition, by its number.
    pub(super) leaders: Vec<i32>,
}

impl Topic {
    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.leaders.len()).unwrap_or(u32::MAX)
    }
}

/// A connection.
pub(super) struct Cluster {
    config: FluvioConfig,
    admin: FluvioAdmin,
    addresses: HashMap<i32, (String, String)>,
    leaders: HashMap<i32, VersionedSerialSocket>,
}

impl Cluster {
    pub(super) async fn connect(config: &FluvioConfig) -> Result<Self, FluvioError> {
        // Here a certificate that cannot be used shows, before anything is tried with it.
        ClientConfig::try_from(config.client()).map_err(|error| FluvioError::Config(format!("{error:#}")))?;
        let client = config.client();
        let admin = bounded(&config.endpoint, CONNECT_WITHIN, FluvioAdmin::connect_with_config(&client)).await?;
        let machines = bounded(&config.endpoint, CALL_WITHIN, admin.all::<SpuSpec>()).await?;
        let place = |spu: SpuSpec, name: String| (spu.id, (name, spu.public_endpoint.addr()));
        let addresses = machines.into_iter().map(|spu| place(spu.spec, spu.name)).collect();
        Ok(Self { config: config.clone(), admin, addresses, leaders: HashMap::new() })
    }

    /// Finds a topic, making it where it is missing, and waits until all of its partitions have a leader.
    pub(super) async fn topic(&self, name: &str) -> Result<Topic, FluvioError> {
        let wrong = |problem: String| FluvioError::Topic { topic: name.to_owned(), problem };
        let mut asked = false;
        let waiting = async {
            loop {
                let topics = self.controller(self.admin.all::<TopicSpec>()).await?;
                if let Some(topic) = topics.into_iter().find(|topic| topic.name == name) {
                    if let Some(leaders) = self.leaders_of(name, topic.spec.partitions()).await? {
                        return Ok(Topic { name: name.to_owned(), leaders });
                    }
                } else if !asked {
                    asked = true;
                    tracing::info!(topic = name, "the topic is not there yet; making it");
                    // Another edge may be quicker; whether it is there now is seen in the next round.
                    if let Err(error) = self.controller(self.admin.create(name.to_owned(), false, self.spec())).await {
                        tracing::info!(topic = name, %error, "the topic could not be made; perhaps another made it");
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(TOPIC_WITHIN, waiting).await {
            Ok(found) => found,
            Err(_) => Err(wrong(format!("not there with a leader for each partition within {TOPIC_WITHIN:?}"))),
        }
    }

    fn spec(&self) -> TopicSpec {
        let mut spec = TopicSpec::new_computed(self.config.partitions, self.config.replication, None);
        let time_in_seconds = u32::try_from(self.config.retention.as_secs()).unwrap_or(u32::MAX);
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds }));
        spec
    }

    /// Who leads; `None`: not all have a leader that is up.
    async fn leaders_of(&self, topic: &str, partitions: u32) -> Result<Option<Vec<i32>>, FluvioError> {
        let all = self.controller(self.admin.all::<PartitionSpec>()).await?;
        let online = all.into_iter().filter(|partition| partition.status.is_online());
        let known: HashMap<String, i32> = online.map(|partition| (partition.name, partition.spec.leader)).collect();
        let leaders = (0..partitions).map(|partition| {
            let leader = known.get(&format!("{topic}-{partition}")).copied();
            leader.filter(|leader| self.addresses.contains_key(leader))
        });
        Ok(leaders.collect::<Option<Vec<i32>>>().filter(|leaders| !leaders.is_empty()))
    }

    async fn controller<T, E: Display>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, FluvioError> {
        bounded(&self.config.endpoint, CALL_WITHIN, call).await
    }

    /// Asks a leader, connecting to it first where nobody has.
    pub(super) async fn call<R>(&mut self, leader: i32, request: R) -> Result<R::Response, FluvioError>
    where
        R: Request + Send + Sync,
    {
        let Some((name, address)) = self.addresses.get(&leader).cloned() else {
            let problem = format!("machine {leader} is not known to the controller");
            return Err(FluvioError::Unreachable { address: self.config.endpoint.clone(), problem });
        };
        let socket = match self.leaders.entry(leader) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let config = ClientConfig::try_from(self.config.client());
                let mut config = config.map_err(|error| FluvioError::Config(format!("{error:#}")))?;
                if self.config.tls.is_some() {
                    config = config.with_prefix_sni_domain(&name);
                }
                config.set_addr(address.clone());
                let (socket, config, versions) = bounded(&address, CONNECT_WITHIN, config.connect()).await?.split();
                place.insert(VersionedSerialSocket::new(MultiplexerSocket::shared(socket), config, versions))
            }
        };
        bounded(&address, CALL_WITHIN, socket.send_receive(request)).await
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("endpoint", &self.config.endpoint).finish_non_exhaustive()
    }
}

/// Waits for an answer, and no longer than `within`.
async fn bounded<T, E: Display>(
    address: &str,
    within: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, FluvioError> {
    match tokio::time::timeout(within, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(FluvioError::Unreachable { address: address.to_owned(), problem: format!("{error:#}") }),
        Err(_) => Err(FluvioError::Slow { address: address.to_owned(), seconds: within.as_secs() }),
    }
}
