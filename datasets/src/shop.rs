//! The example shop: what its API knows, shared by the clients that call it and by the origin that serves it.

/// Products are numbered from 1 to this.
pub const PRODUCTS: u32 = 400;

/// Accounts are numbered from 0 to this, exclusive.
pub const ACCOUNTS: u32 = 5_000;

/// Number of the first order.
pub const FIRST_ORDER: u32 = 100_000;

/// Order numbers that belong to one account; only the first [`ORDERS_TAKEN`] of them exist.
pub const ORDERS_EACH: u32 = 9;

/// Orders that each account has.
pub const ORDERS_TAKEN: u32 = 3;

/// Product categories.
pub const CATEGORIES: [&str; 8] =
    ["shoes", "jackets", "books", "kitchen", "garden", "toys", "audio", "bikes"];

/// Orders of listings.
pub const SORTS: [&str; 4] = ["price", "-price", "rating", "newest"];

/// The user name of an account.
pub fn user_name(account: u32) -> String {
    const FIRST: [&str; 12] =
        ["anna", "ben", "chloe", "david", "emma", "farid", "grace", "hugo", "ines", "jonas", "kira", "liam"];
    let first = FIRST.get(account as usize % FIRST.len()).copied().unwrap_or("anna");
    format!("{first}{account}")
}

/// The account that a user name belongs to.
pub fn account_of(user_name: &str) -> Option<u32> {
    let digits = user_name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let account = digits.parse().ok().filter(|&account| account < ACCOUNTS)?;
    (self::user_name(account) == user_name).then_some(account)
}

/// The password of an account.
pub fn password(account: u32) -> String {
    const WORDS: [&str; 10] =
        ["River", "Maple", "Copper", "Lantern", "Meadow", "Harbor", "Velvet", "Pepper", "Thunder", "Willow"];
    let mixed = mix(u64::from(account));
    let word = WORDS.get((mixed % 10) as usize).copied().unwrap_or("River");
    format!(
        "{word}-{}{}",
        mixed >> 20 & 0xfff,
        ["!", "?", "#", "_"].get((mixed >> 40 & 3) as usize).copied().unwrap_or("!")
    )
}

/// The session cookie `sid` that a login of this account receives.
pub fn session(account: u32) -> String {
    format!("{account:05}.{:016x}", mix(u64::from(account) ^ 0x5e55_1011))
}

/// The account of a session cookie, if the cookie is genuine.
pub fn session_account(sid: &str) -> Option<u32> {
    let account = sid.split_once('.')?.0.parse().ok()?;
    (session(account) == sid).then_some(account)
}

/// The `nth` order (from 0) of an account.
pub fn order(account: u32, nth: u32) -> u32 {
    FIRST_ORDER + account * ORDERS_EACH + nth % ORDERS_TAKEN
}

/// The account that an order belongs to, if the order exists.
pub fn order_owner(order: u32) -> Option<u32> {
    let number = order.checked_sub(FIRST_ORDER)?;
    let account = number / ORDERS_EACH;
    (number % ORDERS_EACH < ORDERS_TAKEN && account < ACCOUNTS).then_some(account)
}

/// The stock-keeping unit of a product: `BK-0042`.
pub fn sku(product: u32) -> String {
    let category = CATEGORIES.get(product as usize % CATEGORIES.len()).copied().unwrap_or("books");
    format!("{}-{product:04}", category.get(..2).unwrap_or("xx").to_uppercase())
}

/// A fixed scrambling of numbers (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_sessions_and_orders_lead_back_to_their_owner() {
        for account in [0, 7, 4_999] {
            assert_eq!(account_of(&user_name(account)), Some(account));
            assert_eq!(session_account(&session(account)), Some(account));
            assert_eq!(order_owner(order(account, 2)), Some(account));
        }
        assert_eq!(account_of("anna1"), None, "account 1 is ben1");
        assert_eq!(session_account("00007.0000000000000000"), None);
        assert_eq!(order_owner(FIRST_ORDER + ORDERS_TAKEN), None, "a gap between two accounts");
        assert_eq!(order_owner(1), None);
    }
}
