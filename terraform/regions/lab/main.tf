provider "lab" {
  region      = var.name
  cidr        = var.cidr
  state_dir   = var.state_dir
  image       = var.image
  task_images = var.task_images
}

module "layout" {
  source = "../../modules/layout"
  name   = var.name
  domain = var.domain
  cidr   = var.cidr
  azs    = var.azs
  pools  = var.pools
  shards = var.shards
  disks  = var.disks
}

module "hosts" {
  source = "../../modules/hosts_lab"
  name   = var.name
  cidr   = var.cidr
  azs    = module.layout.azs
  hosts  = module.layout.hosts
}
