//! Screens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a browser sees a machine's screen.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScreenLinks {
    /// With keyboard and pointer. Who asks on the unix socket gets it with the node's token: it lets do everything.
    pub url: String,
    /// Its token lets watch this machine's screen and do nothing else.
    pub view_only_url: String,
}
