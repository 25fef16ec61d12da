//! A real S3 server for tests: SeaweedFS on loopback, from the wheel that `make setup-test` unpacks.

use crate::{root, scratch};
use anyhow::{Context, Result};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as StorePath;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server with one bucket, `pixdata`. Killed on drop.
#[derive(Debug)]
pub struct S3 {
    server: Child,
    port: u16,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("bound").port()
}

impl S3 {
    /// Starts the server with its files among the tests' scratch files, and waits until it answers.
    pub fn start() -> Self {
        Self::start_in(&scratch().join("weed"))
    }

    /// Starts the server with its files in `dir`, and waits until it answers.
    pub fn start_in(dir: &Path) -> Self {
        let program = root().join(".cache/weed/bin/weed");
        assert!(program.exists(), "{} is missing: run `make setup-test`", program.display());
        std::fs::create_dir_all(dir).expect("the folder for the server's files is writable");
        let port = free_port();
        let log = std::fs::File::create(dir.join("log")).expect("just made");
        let mut command = Command::new(program);
        command.arg("mini").arg(format!("-dir={}", dir.display())).arg(format!("-s3.port={port}"));
        for flag in ["master", "volume", "filer", "admin"] {
            // gRPC ports are these plus 10,000, so each must stay below 55,536.
            command.arg(format!("-{flag}.port={}", low_port()));
        }
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-bucket=pixdata", "-webdav=false", "-admin.ui=false"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.env("AWS_ACCESS_KEY_ID", "AK").env("AWS_SECRET_ACCESS_KEY", "SKSKSKSKSK");
        let server = command.stdout(Stdio::null()).stderr(log).spawn().expect("weed starts");
        let s3 = Self { server, port };
        s3.wait();
        s3
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Environment that makes `s3://pixdata/...` mean this server.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        Self::env_at(self.address())
    }

    /// As [`S3::env`], for a proxy at `address`.
    pub fn env_at(address: SocketAddr) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", "AK".into()),
            ("AWS_SECRET_ACCESS_KEY", "SKSKSKSKSK".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ENDPOINT", format!("http://{address}")),
            ("AWS_ALLOW_HTTP", "true".into()),
        ]
    }

    /// Puts all files of `folder` into the bucket, under `prefix`.
    ///
    /// # Errors
    /// Files that cannot be read or put.
    pub async fn put_folder(&self, folder: &Path, prefix: &str) -> Result<()> {
        let store = AmazonS3Builder::new()
            .with_bucket_name("pixdata")
            .with_region("us-east-1")
            .with_endpoint(format!("http://{}", self.address()))
            .with_allow_http(true)
            .with_access_key_id("AK")
            .with_secret_access_key("SKSKSKSKSK")
            .build()
            .context("the tests' S3 server")?;
        let mut folders = vec![(folder.to_path_buf(), StorePath::from(prefix))];
        while let Some((folder, to)) = folders.pop() {
            let list = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
            for entry in list {
                let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
                let (path, to) = (entry.path(), to.clone().join(entry.file_name().to_string_lossy().as_ref()));
                if path.is_dir() {
                    folders.push((path, to));
                } else {
                    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    store.put(&to, bytes.into()).await.with_context(|| format!("cannot put {to}"))?;
                }
            }
        }
        Ok(())
    }

    /// Until the S3 port accepts and answers HTTP; the server says nothing when it is ready.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if self.answers() {
                return;
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("SeaweedFS does not answer on port {}; see the file `log` among its files", self.port);
    }

    fn answers(&self) -> bool {
        use std::io::Write;
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let asked = stream.write_all(b"GET /pixdata HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let mut head = [0u8; 12];
        // 403 without credentials: the bucket's door is there.
        asked.is_ok() && stream.read_exact(&mut head).is_ok() && head.ends_with(b"403")
    }
}

fn low_port() -> u16 {
    loop {
        let port = free_port();
        if port < 50_000 {
            return port;
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Already dead is what we want.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
