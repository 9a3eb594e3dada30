//! The database of a test: a file in its folder, or, where `SEGUE_TEST_MYSQL` names a server (`testkit/with-mariadb` does), a
//! database of its own there, named after the folder, so that what is opened again is the same one.

use std::path::Path;

use segue_config::Secret;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use url::Url;

use super::DatabaseConfig;

/// Connections of one control plane in a test: several servers share what one MariaDB allows.
const CONNECTIONS: u32 = 8;

pub(crate) fn database(folder: &Path) -> DatabaseConfig {
    let Ok(server) = std::env::var("SEGUE_TEST_MYSQL") else {
        return DatabaseConfig::Sqlite(folder.join("control.db"));
    };
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let name: String = "segue_".chars().chain(digest.iter().take(10).flat_map(|byte| hex(*byte))).collect();
    let mut url = Url::parse(&server).unwrap();
    let password = percent_encoding::percent_decode_str(url.password().unwrap()).decode_utf8().unwrap().into_owned();
    make(server, name.clone());
    url.set_path(&name);
    url.set_password(None).unwrap();
    DatabaseConfig::Mysql { url, password: Some(Secret::literal(password)), connections: CONNECTIONS }
}

fn hex(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap())
}

/// On a thread with a runtime of its own, since configurations are made in the middle of tests.
fn make(server: String, name: String) {
    let made = async move {
        let mut connection = MySqlConnection::connect(&server).await.expect("SEGUE_TEST_MYSQL names no server");
        let sql = AssertSqlSafe(format!("CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4"));
        connection.execute(sql).await.unwrap();
        connection.close().await.unwrap();
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(made)).join().unwrap();
}
