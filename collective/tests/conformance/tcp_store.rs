//! A [`HashStore`] of the parent's, served over TCP to its children: one connection a request, so that a blocked
//! request blocks nobody else. JSON lines, because only tests speak it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pixfleet_collective::{HashStore, RendezvousStore, StoreError};
use serde_json::{Value, json};

/// The client.
pub(crate) struct TcpStore {
    address: SocketAddr,
}

impl TcpStore {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    fn ask(&self, request: &Value) -> Result<Value, StoreError> {
        let exchange = || -> std::io::Result<Value> {
            let mut stream = TcpStream::connect(self.address)?;
            writeln!(stream, "{request}")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        let answer = exchange().map_err(|error| StoreError::Unreachable { source: Box::new(error) })?;
        if answer["late"].is_string() {
            let keys = answer["late"].as_str().unwrap().to_owned();
            return Err(StoreError::Timeout { keys, after: Duration::ZERO });
        }
        Ok(answer["ok"].clone())
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::from_value(value.clone()).unwrap()
}

impl RendezvousStore for TcpStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.ask(&json!({"do": "set", "key": key, "value": value})).map(|_| ())
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        self.ask(&json!({"do": "get", "key": key, "ms": timeout.as_millis() as u64})).map(|value| bytes(&value))
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        self.ask(&json!({"do": "add", "key": key, "amount": amount})).map(|value| value.as_i64().unwrap())
    }

    fn check(&self, keys: &[String]) -> Result<bool, StoreError> {
        self.ask(&json!({"do": "check", "keys": keys})).map(|value| value.as_bool().unwrap())
    }

    fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), StoreError> {
        self.ask(&json!({"do": "wait", "keys": keys, "ms": timeout.as_millis() as u64})).map(|_| ())
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, StoreError> {
        let request = json!({"do": "compare_set", "key": key, "expected": expected, "desired": desired});
        self.ask(&request).map(|value| bytes(&value))
    }

    fn delete(&self, key: &str) -> Result<bool, StoreError> {
        self.ask(&json!({"do": "delete", "key": key})).map(|value| value.as_bool().unwrap())
    }
}

/// Serves `store` for the life of the process, and returns where.
pub(crate) fn serve(store: Arc<HashStore>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let store = Arc::clone(&store);
            std::thread::spawn(move || answer_one(&stream.unwrap(), &store));
        }
    });
    address
}

/// A client that was killed has broken its connection: nobody minds.
fn answer_one(mut stream: &TcpStream, store: &HashStore) {
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line).is_ok() && !line.is_empty() {
        let answer = match answer(&serde_json::from_str(&line).unwrap(), store) {
            Ok(value) => json!({"ok": value}),
            Err(StoreError::Timeout { keys, .. }) => json!({"late": keys}),
            Err(error) => panic!("{error}"),
        };
        let _ = writeln!(stream, "{answer}");
    }
}

fn answer(request: &Value, store: &HashStore) -> Result<Value, StoreError> {
    let key = request["key"].as_str().unwrap_or_default();
    let timeout = Duration::from_millis(request["ms"].as_u64().unwrap_or(0));
    let keys = || serde_json::from_value::<Vec<String>>(request["keys"].clone()).unwrap();
    match request["do"].as_str().unwrap() {
        "set" => store.set(key, &bytes(&request["value"])).map(|()| json!(null)),
        "get" => store.get(key, timeout).map(|value| json!(value)),
        "add" => store.add(key, request["amount"].as_i64().unwrap()).map(|value| json!(value)),
        "check" => store.check(&keys()).map(|value| json!(value)),
        "wait" => store.wait(&keys(), timeout).map(|()| json!(null)),
        "compare_set" => {
            store.compare_set(key, &bytes(&request["expected"]), &bytes(&request["desired"])).map(|value| json!(value))
        }
        "delete" => store.delete(key).map(|value| json!(value)),
        other => panic!("no such request: {other}"),
    }
}
