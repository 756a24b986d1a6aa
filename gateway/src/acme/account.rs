//! The account with an authority: opened once, kept with its key, and used from then on.

use std::{convert::Infallible, fs, io, path::Path, pin::Pin, time::Duration};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, ExternalAccountKey, HttpClient,
    NewAccount,
};
use tokio::task::spawn_blocking;

use crate::{auth::fetch::Fetcher, config::AcmeSettings, store::model_directory::write_whole};

/// Longest time for one exchange with an authority.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an authority says of an account that it does not know (any more).
const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The account that is kept below `directory`, or a new one.
pub(super) async fn open(directory: &Path, settings: &AcmeSettings) -> anyhow::Result<Account> {
    let digest = blake3::hash(settings.directory.as_bytes()).to_hex();
    let file = directory.join(format!("account-{}.json", digest.get(..16).unwrap_or_default()));
    let fetcher = Fetcher::new(&settings.ca).context("TLS towards the authority")?.patient(PATIENCE);
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let builder = || Account::builder_with_http(Box::new(Transport(fetcher.clone())));
    match fs::read(&file) {
        Ok(kept) => {
            let credentials: AccountCredentials = serde_json::from_slice(&kept).with_context(|| {
                format!("{}: holds no account; remove it to open a new one", file.display())
            })?;
            let account = builder().from_credentials(credentials).await?;
            match account.update_contacts(&contact).await {
                Ok(()) => return Ok(account),
                Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(UNKNOWN) => {
                    tracing::warn!(
                        directory = settings.directory,
                        "the authority does not know the account; opening another"
                    );
                }
                Err(error) => return Err(error).context("the account's contacts"),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    }
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let binding = settings.binding.as_ref().map(|binding| {
        let key = BASE64_URL_SAFE_NO_PAD.decode(binding.key.expose())?;
        anyhow::Ok(ExternalAccountKey::new(binding.key_id.clone(), &key))
    });
    let binding = binding.transpose()?;
    let created = builder().create(&new, settings.directory.clone(), binding.as_ref()).await;
    let (account, credentials) = created.context("opening an account")?;
    let text = serde_json::to_vec(&credentials)?;
    spawn_blocking(move || write_whole(&file, &text, 0o600)).await??;
    Ok(account)
}

/// Carries the requests.
struct Transport(Fetcher);

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let fetcher = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body: Result<_, Infallible> = body.collect().await;
            let body = match body {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let fetched = fetcher.send(Request::from_parts(parts, Full::new(body))).await;
            let fetched = fetched.map_err(|error| Error::Other(Box::new(error)))?;
            let mut response = Response::new(Full::new(fetched.body));
            *response.status_mut() = fetched.status;
            *response.headers_mut() = fetched.headers;
            Ok(response.into())
        })
    }
}
