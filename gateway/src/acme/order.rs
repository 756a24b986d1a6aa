//! One certificate, from the order to the chain: every host is proved to be ours, by file or by handshake.

use std::time::Duration;

use anyhow::{Context, bail};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::tokens::{Placed, Tokens};
use crate::{
    config::{AcmeSettings, Challenge},
    tls::automatic::Automatic,
};

/// How an authority is asked whether it is done: soon, then ever more rarely.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// The private key and the chain, in one PEM text.
pub(super) async fn order(
    account: &Account,
    settings: &AcmeSettings,
    tokens: &Tokens,
    automatic: &Automatic,
) -> anyhow::Result<String> {
    let hosts: Vec<Identifier> = settings.hosts.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&hosts)).await.context("the order")?;
    let kind = || match settings.challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut placed = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            _ => bail!("{}: the authority does not let it be proved", authorization.identifier()),
        }
        let Some(mut challenge) = authorization.challenge(kind()) else {
            bail!("the authority does not offer this challenge; choose the other one");
        };
        placed.extend(place(&challenge, settings.challenge, tokens, automatic)?);
        challenge.set_ready().await?;
    }
    if order.poll_ready(&POLLING).await? != OrderStatus::Ready {
        bail!("{}", reason(&mut order).await);
    }
    let key = order.finalize().await.context("the signing request")?;
    let chain = order.poll_certificate(&POLLING).await.context("the certificate")?;
    drop(placed);
    Ok(format!("{key}{chain}"))
}

/// Puts in place what the authority looks for.
fn place<'a>(
    challenge: &ChallengeHandle<'_>,
    kind: Challenge,
    tokens: &'a Tokens,
    automatic: &Automatic,
) -> anyhow::Result<Option<Placed<'a>>> {
    let answer = challenge.key_authorization();
    match kind {
        Challenge::Http01 => Ok(Some(tokens.put(challenge.token.clone(), answer.as_str().to_owned()))),
        Challenge::TlsAlpn01 => {
            let host = challenge.identifier().to_string();
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![host.clone()])?;
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(answer.digest().as_ref())];
            let made = params.self_signed(&key)?;
            automatic.prove(
                host,
                made.der().clone(),
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
            Ok(None)
        }
    }
}

/// Why an authority refuses an order: what it found at our hosts.
async fn reason(order: &mut Order) -> String {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let host = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else { continue };
        let problems = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(problems.map(|problem| format!("{host}: {problem}")));
    }
    if found.is_empty() { "the authority refuses the order".to_owned() } else { found.join("; ") }
}
