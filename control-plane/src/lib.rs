//! segue-control-plane
