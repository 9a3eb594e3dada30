//! One look at a Redis, for `segue doctor`: it must answer and run scripts. Leaves nothing in it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{AsyncConnectionConfig, RedisError, Script};

use super::{Redis, RedisConfig, Source};

/// A connection with its handshake, on a machine that is busy.
const WITHIN: Duration = Duration::from_secs(5);
/// What the limits' scripts begin with.
const TIME: &str = "return redis.call('TIME')";

/// By how many milliseconds its clock is ahead of this machine's.
///
/// # Errors
/// A sentence that holds no secret.
pub(crate) async fn probe(config: &RedisConfig) -> Result<i64, String> {
    let redis = Redis::new(config, "doctor")?;
    let asked = tokio::time::timeout(WITHIN, time(&redis.source)).await;
    let (seconds, micros) = asked
        .map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))?
        .map_err(|error| format!("{}: {}", error.category(), error.detail().unwrap_or("no more is said")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(seconds * 1000 + micros / 1000 - i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

async fn time(source: &Source) -> Result<(i64, i64), RedisError> {
    let script = Script::new(TIME);
    match source {
        Source::One(client) => {
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(WITHIN)).set_response_timeout(Some(WITHIN));
            script.invoke_async(&mut client.get_multiplexed_async_connection_with_config(&config).await?).await
        }
        Source::Cluster(client) => {
            script.key("segue-doctor").invoke_async(&mut client.get_async_connection().await?).await
        }
    }
}
